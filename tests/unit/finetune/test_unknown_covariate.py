"""A run whose heads read a covariate that the pretrained model does not know, and what it leaves for new patients."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from finetune.fold import FINAL, LINEAR, Method
from finetune.kept_predictor import DOCUMENT, Document, KeptPredictor, gather
from finetune.methods.linear import MODELS
from finetune.methods.network import NetworkMethod
from finetune.predictor import ADAPTER, MODEL, NOTHING, Predictor
from finetune.run import finetune
from foundation.cohort.records import Record
from foundation.cohort.store import PreparedCohort
from foundation.data.preprocessing import FILE, Preprocessing

CPU = torch.device("cpu")
FEATURES = {"rna": [f"G{number}" for number in range(8)], "clinical": ["age", "grade", "weight"]}
OTHER_ORDER = {**FEATURES, "clinical": ["weight", "other", "age", "grade"]}
ENDPOINTS = {
    "subtype": {"kind": "subtype", "classes": {"a": 0, "b": 0}},
    "os": {"kind": "survival", "unit": "days"},
}
CONFIG = {
    "cohort": "cohort",
    "out": "run",
    "pretrain": "model",
    "tasks": [{"task": "subtype", "endpoint": "subtype"}, {"task": "survival", "endpoint": "os"}],
    "covariates": ["clinical"],
    "splits": {"folds": 2, "inner_folds": 2},
    "adapt": {"mode": "lora", "rank": 2, "alpha": 4},
    "reads": ["values"],
    "fit": {"epochs": 1, "batch_size": 32},
    "search": {"inner_folds": 1},
    "compare": ["frozen probe"],
    "processes": 1,
}
WEIGHTS = {"subtype": {"ours": 0.4, "frozen probe": 0.3}, "os": {"ours": 0.2, "clinical": 0.7}}
"""As if all kinds of methods had been chosen."""


def records_of(prefix: str, count: int, seed: int) -> list[Record]:
    """Age decides every outcome, and a gene survival too; anything may be missing."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(count):
        age, has = random.standard_normal(), random.random(2) < 0.7
        omics = {
            "rna": random.standard_normal(8).astype(np.float32),
            "clinical": np.array([60 + 10 * age, random.integers(1, 4), random.normal(70, 9)], np.float32),
        }
        risk = 2 * age + 1.5 * float(omics["rna"][0])
        died, lost = random.exponential(900 * np.exp(-risk)), random.exponential(3000)
        endpoints: dict[str, Any] = {"subtype": int(age + 0.3 * random.standard_normal() > 0)}
        endpoints |= {"os/time": float(min(died, lost)), "os/event": int(died <= lost)}
        omics = {name: values for (name, values), there in zip(omics.items(), has, strict=True) if there}
        records.append(Record(patient=f"{prefix}{number:03d}", site="A", omics=omics, endpoints=endpoints))
    return records


def reordered(record: Record) -> Record:
    """With clinical features in another order, and one that the run does not know."""
    if "clinical" not in record.omics:
        return record
    age, grade, weight = record.omics["clinical"]
    return replace(record, omics={**record.omics, "clinical": np.array([weight, 99, age, grade], np.float32)})


@dataclass(frozen=True)
class Finished:
    """A run, elsewhere than it was made.

    Attributes:
        run: Its folder.
        predictor: Its network as it was trained.
        base: The preprocessing.json of the model that it began with.
        metrics: Its own.
        said: What it printed.
        cohorts: Of other patients.
    """

    run: Path
    predictor: Predictor
    base: bytes
    metrics: dict[str, Any]
    said: str
    cohorts: dict[str, PreparedCohort]


@pytest.fixture(scope="module")
def finished(make_cohort: Callable[..., PreparedCohort], make_model, tmp_path_factory) -> Finished:
    """The cohort that it was trained on and the model that it began with are gone."""
    folder = tmp_path_factory.mktemp("unknown_covariate")
    cohort = make_cohort(folder / "cohort", records_of("P", 80, 0), FEATURES, ENDPOINTS)
    make_model(folder / "model", cohort, ["rna"])
    base = (folder / "model" / FILE).read_bytes()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    trained: dict[str, Predictor] = {}
    keep = NetworkMethod._keep

    def remember(self, fold, place, trainee) -> None:
        preprocessing = self.base.preprocessing.joined(trainee.adapted.reading.heads_only)
        trained[self.name] = Predictor(trainee.adapted, trainee.tasks, preprocessing, self.study.modalities)
        keep(self, fold, place, trainee)

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(NetworkMethod, "_keep", remember)
        metrics, run = finetune(folder / "config.yaml")
    moved = Path(shutil.move(run, tmp_path_factory.mktemp("elsewhere") / "run"))
    final = moved / "folds" / FINAL
    document = Document.model_validate_json((final / "kept" / DOCUMENT).read_bytes())
    document.model_copy(update={"weights": WEIGHTS}).write(final / "kept" / DOCUMENT)
    gather(
        moved,
        final / "kept",
        {"frozen probe": final / "frozen-probe" / ADAPTER},
        final / Method(LINEAR).folder / MODELS,
    )
    for gone in (folder / "cohort", folder / "model", moved / "folds"):
        shutil.rmtree(gone)
    records = records_of("Q", 40, 1)
    without = [replace(r, omics={n: v for n, v in r.omics.items() if n == "rna"}) for r in records]
    parts = {
        "alike": (records, FEATURES),
        "other order": ([reordered(r) for r in records], OTHER_ORDER),
        "nobody has it": (without, FEATURES),
        "no such modality": (without, {"rna": FEATURES["rna"]}),
        "it alone": (
            [replace(r, omics={n: v for n, v in r.omics.items() if n == "clinical"}) for r in records],
            {"clinical": FEATURES["clinical"]},
        ),
    }
    cohorts = {name: make_cohort(folder / name, *part, {}) for name, part in parts.items()}
    return Finished(moved, trained["ours"], base, metrics, said.getvalue(), cohorts)


@pytest.mark.parametrize("name", ["alike", "other order", "nobody has it", "no such modality", "it alone"])
def test_the_run_folder_alone_predicts_to_the_bit(finished, name):
    cohort, subsets = finished.cohorts[name], [("rna",), ("clinical",), ("rna", "clinical")]
    found = Predictor.read(finished.run, CPU).predict(cohort, subsets=subsets)
    pd.testing.assert_frame_equal(found, finished.predictor.predict(cohort, subsets=subsets), check_exact=True)
    assert np.isfinite(found.filter(like="/").to_numpy()).all()


@pytest.mark.parametrize("read", [Predictor.read, KeptPredictor.read])
def test_neither_the_order_of_features_nor_unknown_ones_change_anything(finished, read):
    predictor = read(finished.run, CPU)
    tables = [predictor.predict(finished.cohorts[name]) for name in ("alike", "other order")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert tables[0]["subtype/probability/a"].nunique() > 20


def test_heads_read_it_of_whoever_has_it(finished):
    predictor = Predictor.read(finished.run, CPU)
    whole, without = (predictor.predict(finished.cohorts[name]) for name in ("alike", "nobody has it"))
    has = whole["modalities"].str.contains("clinical")
    assert set(whole["modalities"]) == {"rna", "clinical", "rna+clinical", NOTHING}
    columns = ["subtype/probability/a", "os/risk"]
    differ = (whole[columns] - without[columns]).abs().to_numpy().max(axis=1) > 1e-3
    assert differ[has].all() and not differ[~has].any()
    absent = predictor.predict(finished.cohorts["no such modality"])
    pd.testing.assert_frame_equal(absent, without, check_exact=True)


def test_a_subset_of_it_alone_is_predicted_as_if_there_were_nothing_else(finished):
    predictor = Predictor.read(finished.run, CPU)
    frame = predictor.predict(finished.cohorts["alike"], subsets=[("clinical",)])
    found = frame[frame["seen"] == "clinical"].set_index("row").filter(like="/")
    expected = predictor.predict(finished.cohorts["it alone"]).set_index("row").filter(like="/")
    pd.testing.assert_frame_equal(found, expected.loc[found.index], rtol=1e-6)
    everything = frame[frame["seen"] != "clinical"].set_index("row").filter(like="/")
    both = frame.loc[frame["modalities"] == "rna+clinical", "row"].unique()
    assert len(both) > 5 and not np.isclose(found.loc[both, "os/risk"], everything.loc[both, "os/risk"]).any()


def test_it_is_the_best_that_there_is_and_the_report_counts_it_as_a_modality(finished):
    subsets = finished.metrics["by_modality_subset"]
    assert list(subsets) == ["rna", "clinical", "rna+clinical"]
    assert subsets["clinical"]["mean"] > 0.8 > subsets["rna"]["mean"]
    assert finished.metrics["by_pattern"].keys() == {"rna", "clinical", "rna+clinical"}
    lost = finished.metrics["blocks"]["clinical values"]["lost_without"]
    assert lost == max(block["lost_without"] or 0 for block in finished.metrics["blocks"].values()) > 0.1


def test_the_model_folder_stays_as_it_was_and_the_adapter_holds_the_scaling_of_the_covariate_alone(finished):
    assert (finished.run / MODEL / FILE).read_bytes() == finished.base
    patients = finished.metrics["splits"]["patients"]
    for adapter in (ADAPTER, "kept/probe"):
        scaling = Preprocessing.read(finished.run / adapter)
        assert list(scaling.modalities) == ["clinical"] and scaling.patients == patients
        assert "P0" not in (finished.run / adapter / FILE).read_text(), "and names nobody"


def test_what_is_said_of_a_cohort_is_true(finished):
    told = [line for line in finished.said.splitlines() if line.startswith("'clinical'")]
    assert told == [
        "'clinical': this cohort has all 3 features that the model reads.",
        "'clinical': no tower of the model reads it; heads alone do.",
    ]
    predictor = Predictor.read(finished.run, CPU)
    said = {name: predictor.align(cohort).sentences() for name, cohort in finished.cohorts.items()}
    assert said["alike"][1] == "'clinical': this cohort has all 3 features that the model reads."
    assert said["other order"][1].endswith("Not used: 1 feature that the model does not know.")
    assert said["no such modality"][1] == "'clinical': this cohort has none, so every patient is read without it."
    assert not any("trained without" in sentence for sentences in said.values() for sentence in sentences)
