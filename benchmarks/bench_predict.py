"""Predicting a cohort against the bare forward passes of the same networks, on batches that lie in memory.

Run `python benchmarks/bench_predict.py [RUN COHORT]`, by default on what `make demo` leaves. One process with one
thread, seconds of processor time; both take turns, so that whatever slows the machine slows both, and the ratio is
taken turn by turn. Beside it stands the same for embedding, and for predicting with a network as large as people use,
with random weights, since the demo's is so small that linear models and percentiles of images take as long.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from finetune.kept_predictor import KeptPredictor
    from foundation.cohort.store import PreparedCohort
    from foundation.data.alignment import Aligned
    from foundation.data.batch import Batch

RESULT = Path(__file__).parent / "results" / "predict.json"


def seconds(work: Callable[[], object]) -> float:
    """Of processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def ratios(bare: Callable[[], object], ours: Callable[[], object], turns: int) -> list[float]:
    """Bare seconds by ours, turn by turn: the share of the bare speed that is reached."""
    bare(), ours()
    return [seconds(bare) / seconds(ours) for _ in range(turns)]


def in_memory(aligned: Aligned) -> list[Batch]:
    """All records of a cohort as a model reads them."""
    from foundation.data.dataset import CohortDataset
    from foundation.data.sampler import BatchKey
    from foundation.model.embedding import BATCH

    data, rows = CohortDataset(aligned), np.arange(len(aligned.cohort))
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return [data.__getitems__(BatchKey(part, np.zeros(len(part), dtype=np.int64))) for part in parts]


def of_predicting(predictor: KeptPredictor, cohort: PreparedCohort, turns: int) -> float | None:
    """Share of the speed of the kept networks; None where none is kept."""
    networks = [(network, in_memory(network.align(cohort))) for network in predictor.networks.values()]

    @torch.no_grad()
    def forward() -> None:
        for network, batches in networks:
            for batch in batches:
                network(batch)

    return statistics.median(ratios(forward, lambda: predictor.predict(cohort), turns)) if networks else None


def of_embedding(folder: Path, cohort: PreparedCohort, turns: int) -> float:
    """Share of the speed of the model."""
    from foundation.data.alignment import align
    from foundation.model.view import FUSED, View
    from pretrain.embed import Embedder

    embedder = Embedder.open(folder / "model")
    batches = in_memory(align(embedder.preprocessing, cohort))

    @torch.no_grad()
    def forward() -> None:
        for batch in batches:
            embedder.model(batch, {FUSED: View(FUSED)})

    return statistics.median(ratios(forward, lambda: embedder.table(cohort), turns))


def larger(cohort: PreparedCohort) -> KeptPredictor:
    """A predictor of one task by one network of 22 million parameters on scans, of random weights, with novelty."""
    import finetune.tasks  # noqa: F401  (registers them)
    from finetune.config import OURS
    from finetune.kept_predictor import KeptPredictor
    from finetune.methods.adapt import adapt
    from finetune.methods.heads import Head
    from finetune.methods.modes import Frozen
    from finetune.methods.reading import ALL, Reading
    from finetune.predictor import Predictor
    from finetune.tasks.base import tasks
    from finetune.uncertainty.novelty import Novelty
    from foundation.data.alignment import align
    from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
    from foundation.model.fusion.base import fusions
    from foundation.model.multimodal import MultimodalConfig, MultimodalModel
    from foundation.model.towers.base import towers

    rows, modalities = np.arange(len(cohort)), ("mri", "rna")
    config = PreprocessingConfig(modalities=[*modalities])
    aligned = align(fit_preprocessing(cohort, rows, config), cohort)
    vit = towers["vit2d"].Config(model="vit_small_patch16_224", arguments={"patch_size": 8}, max_slices=16)
    parts = {"mri": vit, "omics": towers["omics_transformer"].tiny()}
    described = aligned.preprocessing.described()
    model = MultimodalModel(MultimodalConfig.of(described, parts, fusions["gated_mean"].tiny(), 128)).eval()
    reading = Reading.of(model, aligned, rows, ALL, [])
    task = tasks.build(tasks["subtype"].Config(endpoint="subtype"), cohort.manifest.endpoints)
    heads = torch.nn.ModuleDict({"subtype": Head(task, reading.blocks())})
    adapted = adapt(model, Frozen(), heads, reading=reading).eval()
    network = Predictor(adapted, {"subtype": task}, aligned.preprocessing, modalities)
    novelty, weights = Novelty.learn(aligned, rows), {"subtype": {OURS: 1.0}}
    return KeptPredictor(weights, {"subtype": task}, {OURS: network}, {}, modalities, {"subtype": []}, novelty)


def main() -> None:
    """Measure, print and write."""
    from finetune.kept_predictor import KeptPredictor
    from foundation.cohort.store import PreparedCohort

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, default=Path("demo/finetuned"))
    parser.add_argument("cohort", nargs="?", type=Path, default=Path("demo/cohort"))
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.run.is_dir():
        print(f"nothing to measure: {arguments.run} is not there; run `make demo`, or name a run and a cohort")
        return
    torch.set_num_threads(1)
    cohort = PreparedCohort(arguments.cohort)
    found = {
        "records": len(cohort),
        "predict": of_predicting(KeptPredictor.read(arguments.run), cohort, arguments.turns),
        "predict with a network of 22 million parameters": of_predicting(larger(cohort), cohort, 2),
        "embed": of_embedding(arguments.run, cohort, arguments.turns),
        "processor": platform.processor() or platform.machine(),
    }
    for name in ("predict", "predict with a network of 22 million parameters", "embed"):
        if found[name] is not None:
            print(f"{name}: {found[name]:.2f} of the speed of the bare forward passes, {len(cohort)} records")
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
