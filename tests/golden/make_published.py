"""Make a published folder that later versions must predict the same with: python tests/golden/make_published.py NAME.

Writes tests/golden/published/NAME: ``model``, as `chiasma publish` wrote it; ``cohort``, twelve new patients as
prepared; and what is predicted and embedded of them. All of it is simulated, and small: scans of 10 x 12 x 8 voxels.
Once made it stays as it is; a new format of anything in it is a reason to make another beside it.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from pathlib import Path

import chiasma
from finetune.predictor import Predictor
from foundation.cohort.store import PreparedCohort
from foundation.yaml_text import dump, parse
from launch.cli import main

PUBLISHED = Path(__file__).parent / "published"
GENES = 120

PRETRAINING = {
    "cohort": "cohort",
    "out": "pretrained",
    "held_out": {"fraction": 0.5},
    "preprocessing": {"modalities": ["mri", "rna", "mutation", "cnv", "protein"]},
    "towers": {
        "mri": {
            "tower": "vit2d",
            "arguments": {
                "patch_size": 4,
                "embed_dim": 16,
                "depth": 1,
                "num_heads": 2,
                "global_pool": "avg",
                "class_token": False,
            },
            "max_slices": 4,
            "pool_heads": 2,
        },
        "omics": {
            "tower": "omics_transformer",
            "tokenizer": {"tokenizer": "chunk", "size": 32},
            "width": 16,
            "heads": 2,
        },
    },
    "width": 16,
    "fusion": {"fusion": "attention", "heads": 2},
    "objectives": {"contrast": {"loss": {"objective": "infonce"}}},
    "epochs": 20,
    "batch_size": 16,
    "permutations": 100,
    "probes": False,
}
FINETUNING = {
    "cohort": "cohort",
    "out": "finetuned",
    "pretrain": "pretrained/model",
    "tasks": [
        {"task": "subtype", "endpoint": "subtype"},
        {"task": "response", "endpoint": "response"},
        {"task": "survival", "endpoint": "os"},
    ],
    "covariates": ["clinical"],
    "adapt": {"mode": "lora", "rank": 2, "alpha": 4},
    "fit": {"epochs": 6, "batch_size": 16},
    "splits": {"folds": 2, "inner_folds": 2},
    "processes": 1,
}


def run(*command: object) -> None:
    """A command that has to succeed."""
    if main([str(part) for part in command]):
        raise SystemExit(1)


def prepare(source: Path, out: Path) -> None:
    """A simulated cohort with scans of a few hundred voxels."""
    spec = parse((source / "cohort.yaml").read_text())
    spec["modalities"]["mri"] |= {"spacing": [16, 16, 18], "size": [10, 12, 8]}
    for name in ("rna.tsv.gz", "covered_genes.txt"):
        first_lines(source / name, GENES)
    (source / "small.yaml").write_text(dump(spec))
    run("prepare", source / "small.yaml", "--out", out, "--workers", 1)


def first_lines(path: Path, count: int) -> None:
    """Leave the first lines of a text file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        lines = [next(file) for _ in range(count)]
    with opened(path, "wt") as file:
        file.writelines(lines)


def make(out: Path) -> None:
    """Write the folder."""
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        run("simulate", here / "source", "--patients", 120, "--seed", 7)
        prepare(here / "source", here / "cohort")
        run("simulate", here / "new", "--patients", 12, "--seed", 7, "--after", 120)
        prepare(here / "new", here / "new" / "cohort")
        for name, config in (("pretrain", PRETRAINING), ("finetune", FINETUNING)):
            (here / f"{name}.yaml").write_text(dump(config))
            run(name, here / f"{name}.yaml")
        run("publish", here / "finetuned", "--to", here / "golden", "--licence", "apache-2.0")
        out.mkdir(parents=True)
        shutil.copytree(here / "golden", out / "model")
        unused = shutil.ignore_patterns("summary.html", "sources.tsv")
        shutil.copytree(here / "new" / "cohort", out / "cohort", ignore=unused)
    model = chiasma.load(out / "model")
    model.predict(out / "cohort").to_parquet(out / "predictions.parquet", index=False)
    model.embed(out / "cohort").to_parquet(out / "embeddings.parquet", index=False)
    # Whether or not the adapted model is part of what was kept.
    Predictor.read(out / "model").predict(PreparedCohort(out / "cohort")).to_parquet(
        out / "adapted.parquet", index=False
    )


if __name__ == "__main__":
    make(PUBLISHED / sys.argv[1])
