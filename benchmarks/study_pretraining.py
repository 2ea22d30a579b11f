"""Where pretraining helps: heads on what was pretrained one way or another, beside components, and from scratch.

    python benchmarks/study_pretraining.py configs/finetune/rosmap.yaml cohort=runs/rosmap-cohort --out runs/where

Takes a fine-tuning YAML with `pretrain: per_fold`. The model is pretrained by each objective alone, by all as the YAML
has them, and for a single step, which leaves the initial weights; heads are fitted to each frozen model, once to the
fused embedding alone and once to all that they may read. Beside them stand the same network trained from scratch for
the task, and a linear model of as many components of the omics as the embedding is wide. All is judged by the
log-likelihood of held-out patients of inner folds, so that no test patient decides anything.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from finetune.config import FROM_SCRATCH, FROZEN_PROBE, FinetuneConfig
from finetune.methods import inputs
from finetune.run import finetune_folds, names_of_folds
from foundation.config import load_config
from foundation.files.whole import write_json
from foundation.yaml_text import dump, parse
from launch.pretrained import pretrain_model

READS = {"embedding": "reads=[]", "all": "reads=[towers, values, images]"}
ONE_STEP = ["epochs=0.001", "ema=null"]


def variants(config: FinetuneConfig) -> dict[str, list[str]]:
    """Name to changes of the pretraining YAML."""
    assert config.pretraining is not None
    objectives = parse(config.pretraining.read_text())["objectives"]
    alone = {f"{name} alone": [f"objectives={dump({name: of})}"] for name, of in objectives.items()}
    return {"initial weights": ONE_STEP, **(alone if len(alone) > 1 else {}), "as configured": []}


def values(out: Path, fold: str) -> dict[str, dict[str, float]]:
    """Task to method to the log-likelihood of held-out patients, of one fold of a run."""
    kept = json.loads((out / "folds" / fold / "kept" / "kept.json").read_text())
    return {task: found["cv_log_likelihood"] for task, found in kept.items()}


def scratch(out: Path, fold: str) -> dict[str, Any]:
    """What was chosen from scratch; its log-likelihood is summed over tasks."""
    return json.loads((out / "folds" / fold / FROM_SCRATCH.replace(" ", "-") / "choice.json").read_text())


def measure(path: Path, changes: list[str], out: Path, folds: int) -> dict[str, Any]:
    """Task to row to the mean log-likelihood over folds; and that from scratch, summed over tasks."""
    config = load_config(FinetuneConfig, path, [*changes, f"out={out}"])
    names = names_of_folds(path, [*changes, f"out={out}"])[:folds]
    width = config.to_be_built().width  # type: ignore[union-attr]
    rows: dict[str, dict[str, list[float]]] = {}
    anew = []
    for variant, pretraining in variants(config).items():
        for read, reads in READS.items():
            folder = out / f"{variant} {read}".replace(" ", "-")
            last = variant == "as configured" and read == "all"
            told = [
                *changes, f"out={folder}", reads, "adapt={mode: frozen}", "final=false", "processes=1",
                f"compare={[FROM_SCRATCH] if last else []}",
                f"pretraining_changes={dump([*config.pretraining_changes, *pretraining])}",
            ]  # fmt: skip
            with patch.object(inputs, "COMPONENTS", width):
                finetune_folds(path, told, names, pretrain=pretrain_model)
            for fold in names:
                for task, of_method in values(folder, fold).items():
                    row = rows.setdefault(task, {})
                    row.setdefault(f"{variant}: {read}", []).append(of_method["ours"])
                    if last:
                        linear = {n: v for n, v in of_method.items() if n not in ("ours", FROZEN_PROBE, "stack")}
                        for name, value in linear.items():
                            row.setdefault(f"linear: {name}, {width} components", []).append(value)
                if last:
                    anew.append(scratch(folder, fold)["cv_log_likelihood"])
            write_json(out / "so-far.json", rows)
    found = {task: {name: float(np.mean(of)) for name, of in each.items()} for task, each in rows.items()}
    return {"log_likelihood": found, "from scratch, all tasks": float(np.mean(anew)), "folds": list(names)}


def main() -> None:
    """Measure and print a table for each task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, help="fine-tuning YAML with pretrain: per_fold")
    parser.add_argument("changes", nargs="*", help="key=value changes to it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and result.json")
    parser.add_argument("--folds", type=int, default=1, help="how many of the folds")
    asked = parser.parse_args()
    found = measure(asked.config, asked.changes, asked.out, asked.folds)
    write_json(asked.out / "result.json", found)
    for task, rows in found["log_likelihood"].items():
        print(f"\n| {task} | log-likelihood |\n|---|---|")
        for name, value in sorted(rows.items(), key=lambda row: -row[1]):
            print(f"| {name} | {value:.4f} |")
    print(f"\nfrom scratch, summed over tasks: {found['from scratch, all tasks']:.4f}")


if __name__ == "__main__":
    main()
