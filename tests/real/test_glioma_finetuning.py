"""Fine-tuning on real gliomas: the three subtypes from RNA, beside what others reach on these patients."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune.run import finetune
from foundation.cohort.prepare import prepare
from foundation.progress import Silent

COHORT = Path(__file__).parents[2] / "configs" / "cohorts" / "tcga-glioma.yaml"

REFERENCE, TOLERANCE = 0.93, 0.03
"""Balanced accuracy of principal components of RNA and logistic regression, from the README of the data."""

CONFIG = {
    "cohort": "cohort",
    "out": "run",
    "pretrain": "none",
    "network": {
        "preprocessing": {"modalities": ["rna"], "minimum_observed": 0.5},
        "towers": {
            "omics": {
                "tower": "omics_transformer",
                "tokenizer": {"tokenizer": "chunk", "size": 512},
                "width": 32,
                "depth": 1,
                "heads": 2,
            }
        },
        "fusion": {"fusion": "gated_mean"},
        "width": 32,
    },
    "tasks": [{"task": "subtype", "endpoint": "idh_codel"}],
    "splits": {"folds": 3, "inner_folds": 2},
    "adapt": {"mode": "scratch"},
    "fit": {"epochs": 3, "batch_size": 32},
    "final": False,
    "processes": 1,
}

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def metrics(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("glioma")
    spec = yaml.safe_load(COHORT.read_text(encoding="utf-8"))
    spec["modalities"] = {name: entry for name, entry in spec["modalities"].items() if name in ("rna", "clinical")}
    del spec["annotations"]
    (folder / "cohort.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    prepare(folder / "cohort.yaml", out=folder / "cohort", root=real_data / "tcga_glioma", workers=1, progress=Silent())
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return finetune(folder / "config.yaml")[0]


def test_the_linear_baseline_is_what_others_reach(metrics):
    assert metrics["baselines"]["omics"]["mean"] == pytest.approx(REFERENCE, abs=TOLERANCE)
    assert metrics["baselines"]["clinical"]["mean"] < metrics["baselines"]["omics"]["mean"] - 0.1


def test_a_network_learns_subtypes_and_is_compared_on_the_same_patients(metrics):
    low, high = metrics["ci95"]
    assert metrics["chance"] == pytest.approx(1 / 3) and low > 0.5 and low < metrics["mean"] < high
    assert metrics["n"] == metrics["baselines"]["omics"]["n"] == sum(metrics["classes"].values())
    difference = metrics["baselines"]["omics"]["difference"]["value"]
    assert difference == pytest.approx(metrics["mean"] - metrics["baselines"]["omics"]["mean"])
