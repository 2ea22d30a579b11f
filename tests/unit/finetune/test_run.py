"""Runs of every kind: with modalities hidden or missing, without pretraining, and with pretraining for each fold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foundation.cohort.store import PreparedCohort
from foundation.model.seen_patients import SeenPatients
from launch.pretrained import pretrain_model


def test_a_modality_that_may_not_be_seen_is_not_seen(tune, monkeypatch):
    changes = ["modalities=[rna, clinical]", "tasks=[{task: subtype, endpoint: subtype}]"]
    metrics, folder = tune(*changes)
    assert list(metrics["by_modality_subset"]) == ["rna", "clinical", "rna+clinical"]
    assert set(metrics["by_pattern"]) == {"rna", "clinical", "rna+clinical"}

    def predicted_without(name: str) -> pd.DataFrame:
        values_NF = PreparedCohort.values_NF

        def spoilt(self, modality, rows, features=slice(None)):
            found_NF = values_NF(self, modality, rows, features)
            return 1 - found_NF if modality == name else found_NF

        with monkeypatch.context() as patch:
            patch.setattr(PreparedCohort, "values_NF", spoilt)
            return pd.read_parquet(tune(*changes)[1] / "predictions.parquet")

    expected = pd.read_parquet(folder / "predictions.parquet")
    pd.testing.assert_frame_equal(predicted_without("mutation"), expected, check_exact=True)
    assert not predicted_without("rna").equals(expected)


def test_a_network_that_was_not_pretrained(tune, untrained, cohort):
    metrics, folder = tune(*untrained, "compare=[from scratch, frozen probe]", "final=true")
    assert metrics["pretrain"] == {"from": "none", "tested_though_seen": 0}
    assert {"clinical", "omics", "clinical + omics"} == set(metrics["baselines"]), "it is from scratch itself"
    assert metrics["splits"]["seen_train_only"] == 0
    assert (folder / "adapter").is_dir() and (folder / "model").is_dir()
    assert len(pd.read_parquet(folder / "predictions.parquet")) == metrics["splits"]["patients"]


def test_pretrained_for_each_fold_it_has_not_seen_its_test_patients(tune, workplace, cohort):
    changes = ["pretrain=per_fold", f"pretraining={workplace / 'pretraining.yaml'}"]
    metrics, folder = tune(*changes, "tasks=[{task: subtype, endpoint: subtype}]", pretrain=pretrain_model)
    predictions = pd.read_parquet(folder / "predictions.parquet")
    everybody = np.unique(cohort.patients.astype(str))
    assert metrics["pretrain"] == {"from": "per_fold", "tested_though_seen": 0}
    for fold, here in predictions.groupby("fold"):
        [patients] = (folder / "folds" / fold).rglob("pretrained/model/patients.json")
        seen = set(everybody[SeenPatients.read(patients.parent).among(everybody)])
        assert seen == set(everybody) - set(here["patient"])


EVERYTHING = "reads=[towers, modalities, values, images]"


@pytest.mark.parametrize("start", ["path", "per_fold", "none"])
def test_what_is_attached_is_printed_before_training(tune, workplace, untrained, capsys, start):
    changes = {
        "path": [],
        "per_fold": ["pretrain=per_fold", f"pretraining={workplace / 'pretraining.yaml'}"],
        "none": untrained,
    }[start]
    task = "tasks=[{task: subtype, endpoint: subtype}]"
    metrics, _ = tune(*changes, task, EVERYTHING, "covariates=[clinical]", pretrain=pretrain_model)
    table = metrics["adaptation"]
    assert table in capsys.readouterr().out
    # Weights of three classes for five embeddings of 8, and for each of 24 features with whether it was seen.
    assert re.search(rf"heads +{3 * (40 + 48) + 3} +{3 * (40 + 48) + 3}", table)
    assert ("LoRA on blocks.*.attention.query" in table) == (start != "none")


@pytest.mark.parametrize("start", ["per_fold", "none"])
def test_heads_read_a_covariate_that_a_model_made_for_the_run_does_not_know(tune, workplace, untrained, capsys, start):
    known = {"modalities": ["rna", "mutation"]}
    changes = {
        "per_fold": [
            "pretrain=per_fold",
            f"pretraining={workplace / 'pretraining.yaml'}",
            "pretraining_changes=['preprocessing.modalities=[rna, mutation]']",
        ],
        "none": [*untrained, f"network.preprocessing={json.dumps(known)}"],
    }[start]
    task = "tasks=[{task: subtype, endpoint: subtype}]"
    metrics, _ = tune(*changes, task, EVERYTHING, "covariates=[clinical]", pretrain=pretrain_model)
    assert metrics["modalities"] == ["rna", "mutation", "clinical"]
    assert {"clinical", "rna+mutation+clinical"} <= set(metrics["by_modality_subset"])
    assert "clinical" in metrics["by_pattern"], "who has nothing else is read too"
    assert "clinical values" in metrics["blocks"]
    # As many inputs as where the model knows all of it, but for an embedding of the covariate.
    assert re.search(rf"heads +{3 * (32 + 48) + 3} +{3 * (32 + 48) + 3}", metrics["adaptation"])
    assert "'clinical': no tower of the model reads it; heads alone do." in capsys.readouterr().out


def test_a_cohort_that_lacks_a_modality_of_the_model_is_read_without_it(tune, workplace, tmp_path):
    cohort = Path(shutil.copytree(workplace / "cohort", tmp_path / "cohort"))
    for name in ("cohort.json", "features.json"):
        document = json.loads((cohort / name).read_text())
        document.get("modalities", document).pop("mutation")
        document.get("files", {}).pop("features.json", None)
        (cohort / name).write_text(json.dumps(document))
    metrics, _ = tune(f"cohort={cohort}", "tasks=[{task: subtype, endpoint: subtype}]")
    assert metrics["modalities"] == ["rna", "clinical"]
    assert list(metrics["by_modality_subset"]) == ["rna", "clinical", "rna+clinical"]
