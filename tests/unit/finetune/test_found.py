"""Regions found in scans: learned on training patients, read by heads and a linear model, kept for new patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import chiasma
from finetune.config import FinetuneConfig
from finetune.run import finetune, make_study
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.errors import ChiasmaError
from foundation.progress import Silent
from foundation.simulation.simulate import simulate

TOWER = {
    "tower": "vit2d",
    "arguments": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "max_slices": 2,
    "pool_heads": 2,
}
CONFIG = {
    "out": "run",
    "pretrain": "none",
    "network": {"towers": {"mri": TOWER}, "fusion": {"fusion": "gated_mean"}, "width": 8},
    "tasks": [{"task": "subtype", "endpoint": "subtype"}],
    "modalities": ["mri"],
    "find": ["tumour"],
    "adapt": {"mode": "scratch"},
    "splits": {"folds": 3, "inner_folds": 2},
    "fit": {"epochs": 1, "batch_size": 16},
    "processes": 1,
}


@pytest.fixture(scope="module")
def config(drawn, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("found") / "config.yaml"
    network = {**CONFIG["network"], "preprocessing": {"modalities": ["mri"]}}
    path.write_text(yaml.safe_dump({**CONFIG, "network": network, "cohort": str(drawn.path)}))
    return path


@pytest.fixture(scope="module")
def run(config):
    return finetune(config)


def test_test_patients_teach_no_finder(config, monkeypatch):
    """Whatever was drawn on them, what is found in any scan stays the same to the bit."""
    study = make_study(load_config(FinetuneConfig, config))
    fold, rows = study.folds.folds[0], np.arange(len(study.cohort))
    expected = study.finding(fold).cohort.values_NF("found_tumour", rows)
    whole, hidden = PreparedCohort.annotation, set(fold.test.tolist())

    def redrawn(self, name, row):
        found = whole(self, name, row)
        return replace(found, regions=~found.regions) if found is not None and row in hidden else found

    monkeypatch.setattr(PreparedCohort, "annotation", redrawn)
    np.testing.assert_array_equal(study.finding(fold).cohort.values_NF("found_tumour", rows), expected)
    hidden |= set(fold.train.tolist())
    assert not np.array_equal(study.finding(fold).cohort.values_NF("found_tumour", rows), expected, equal_nan=True)


def test_the_report_has_a_linear_model_of_it_and_how_well_it_is_found(run, drawn):
    metrics, folder = run
    assert {"found regions", "image"} <= metrics["baselines"].keys()
    found = metrics["found"]["tumour"]["tumour"]
    assert 0 < found["images"] <= drawn.manifest.annotations["tumour"].patients and 0.3 < found["median"] <= 1
    assert "how well it is found" in (folder / "report.html").read_text()
    assert metrics["modalities"] == ["mri", "found_tumour"]


def test_new_patients_need_no_drawing(run, tmp_path):
    tables = []
    for drawn_too in (True, False):
        place = tmp_path / str(drawn_too)
        simulate(place / "source", 12, 3, lambda done, total: None, after=72, annotations=drawn_too)
        prepare(place / "source" / "cohort.yaml", out=place / "cohort", workers=1, progress=Silent())
        tables.append(chiasma.load(run[1]).predict(place / "cohort"))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    scanned = tables[0]["modalities"] == "mri+found_tumour"
    assert scanned.any() and tables[0].loc[scanned, "subtype/probability/S1"].notna().all()
    assert "found_tumour" not in chiasma.load(run[1]).template()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["find=[tumor]"], "has no annotation 'tumor'"),
        (["modalities=[rna]", "covariates=[rna]"], "'mri' may not be seen"),
    ],
)
def test_what_cannot_be_found_is_refused(config, tmp_path, changes, said):
    with pytest.raises(ChiasmaError, match=said):
        finetune(config, [f"out={tmp_path / 'run'}", *changes])
