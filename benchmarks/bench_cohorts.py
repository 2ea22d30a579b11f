"""Do unpaired cohorts help a paired one, and does it drown in them: three mixtures of simulated cohorts, same steps.

    python benchmarks/bench_cohorts.py

One simulation is divided into a cohort of pairs, one of scans alone and one of omics alone. A small model is pretrained
for as many steps on the pairs alone, on all three as they are, and on all three with half of each batch pairs; held out
are the same patients of the cohort of pairs. All of it is simulated: it says what the key does, not what patients gain.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.files.whole import write_json
from foundation.progress import Silent
from foundation.simulation.simulate import simulate
from foundation.yaml_text import dump, parse
from pretrain.run import pretrain

CONFIG = """
out: run
held_out: {patients: held_out.txt}
towers:
  mri:
    tower: vit2d
    model: vit_tiny_patch16_224
    arguments: {patch_size: 8, embed_dim: 64, depth: 2, num_heads: 4, global_pool: avg, class_token: false}
    max_slices: 2
  omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk, size: 64}, width: 64, depth: 1}
width: 64
fusion: {fusion: attention}
objectives:
  contrast: {loss: {objective: infonce, hidden_features: 0.5, hidden_patches: 0.2, weights: {omics_omics: 0.3}}}
  masked: {loss: {objective: masked_omics, fraction: 0.5, image_alone: 0.5}, weight: 20}
dropout: {default: 0.1, channels: 0.1}
batch_size: 32
ema: 0.98
optimiser: {learning_rate: 2.5e-3, weight_decay: 0.1, tower_rates: {omics: 0.1}}
checkpoint_every: 10000
log_every: 20
permutations: 100
"""
MIXTURES = {
    "pairs alone": "cohort: pairs\n",
    "all, as they are": "cohorts: [{path: pairs}, {path: scans}, {path: omics}]\n",
    "all, pairs: 0.5": "cohorts: [{path: pairs}, {path: scans}, {path: omics}]\npairs: 0.5\n",
}
KINDS = {"pairs": ("image", "omics"), "scans": ("image",), "omics": ("omics",)}

RESULT = Path(__file__).parent / "results" / "cohorts.json"


def divide(folder: Path, sizes: dict[str, int], seed: int) -> None:
    """Simulate patients once, and prepare some of them as each cohort."""
    source = folder / "source"
    simulate(source, patients=sum(sizes.values()), seed=seed, progress=lambda done, total: None)
    clinical, start = pd.read_csv(source / "clinical.tsv", sep="\t", dtype=str), 0
    for name, size in sizes.items():
        table = folder / f"{name}.tsv"
        clinical[start : start + size].to_csv(table, sep="\t", index=False)
        start += size
        spec = parse((source / "cohort.yaml").read_text(encoding="utf-8"))
        spec |= {"name": name, "root": str(source), "quarantine": {"stop_above": 1.0}}
        spec["clinical"]["files"] = str(table)
        kept = {n: m for n, m in spec["modalities"].items() if m["kind"] in KINDS[name] and n != "clinical"}
        spec |= {"modalities": kept, "endpoints": {}}
        del spec["clinical"]["site"]  # Nothing but retrieval is asked of these runs.
        (folder / f"{name}.yaml").write_text(dump(spec), encoding="utf-8")
        prepare(folder / f"{name}.yaml", out=folder / name, workers=1, progress=Silent())


def measure(folder: Path, mixture: str, seed: int, steps: int) -> dict[str, Any]:
    """Pretrain on a mixture, and what it then reaches on the patients held out."""
    path = folder / "config.yaml"
    path.write_text(MIXTURES[mixture] + CONFIG, encoding="utf-8")
    names = ("pairs",) if mixture == "pairs alone" else tuple(KINDS)
    held_out = len((folder / "held_out.txt").read_text(encoding="utf-8").split())
    records = sum(len(PreparedCohort(folder / name)) for name in names) - held_out
    out = folder / f"{mixture} {seed}".replace(" ", "-").replace(":", "").replace(",", "")
    metrics, _ = pretrain(path, [f"out={out}", f"seed={seed}", f"epochs={steps * 32 / records}"])
    retrieval = metrics["retrieval"]
    return {
        "mixture": mixture,
        "seed": seed,
        "recall@10": np.mean([retrieval[way]["recall@10"] for way in ("mri->omics", "omics->mri")]).item(),
        "chance@10": retrieval["mri->omics"]["chance@10"],
        "n": retrieval["mri->omics"]["n"],
        "drawn": metrics.get("cohorts"),
    }


def main() -> None:
    """Run it and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--pairs", type=int, default=250, help="Patients of the cohort of pairs.")
    parser.add_argument("--held-out", type=int, default=170, help="Of these.")
    parser.add_argument("--scans", type=int, default=250)
    parser.add_argument("--omics", type=int, default=600)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        divide(folder, {"pairs": asked.pairs, "scans": asked.scans, "omics": asked.omics}, seed=17)
        patients = sorted(set(PreparedCohort(folder / "pairs").patients))
        (folder / "held_out.txt").write_text("\n".join(patients[: asked.held_out]), encoding="utf-8")
        for seed in range(asked.seeds):
            for mixture in MIXTURES:
                results.append(measure(folder, mixture, seed, asked.steps))
                print(json.dumps({k: v for k, v in results[-1].items() if k != "drawn"}), flush=True)
    settings = {key: value for key, value in vars(asked).items() if key != "out"}
    write_json(asked.out, {"simulated": True, "settings": settings, "results": results})


if __name__ == "__main__":
    main()
