"""Linear baselines as predictions of a fold's tasks: one row a patient, columns of the tasks, NaN without a label."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.config import FinetuneConfig
from finetune.methods.adapted import EVERYTHING
from finetune.methods.baselines import predict
from finetune.methods.linear import write_linear
from finetune.run import make_study
from finetune.splits import Fold
from finetune.study import Study
from foundation.config import load_config

COLUMNS = {"subtype": [f"subtype/probability/{name}" for name in "abc"], "os": ["os/risk"]}
"""Endpoint to the columns of its task."""


def study_of(workplace: Path, *changes: str) -> Study:
    return make_study(load_config(FinetuneConfig, workplace / "config.yaml", changes))


def write(study: Study, folder: Path) -> dict[str, pd.DataFrame]:
    """Baseline to what it predicts of the first fold."""
    folder.mkdir()
    models = write_linear(study, study.folds.folds[0], folder)
    assert set(models) == {path.stem for path in folder.iterdir()}
    return {path.stem: pd.read_parquet(path) for path in folder.iterdir()}


def labelled(study: Study, fold: Fold, known_N: np.ndarray) -> Fold:
    """The first record of each labelled patient on both sides."""

    def of(side: np.ndarray) -> np.ndarray:
        frame = pd.DataFrame({"row": side, "patient": study.cohort.patients[side]})[known_N[side]]
        return frame.drop_duplicates("patient")["row"].to_numpy()

    return Fold(fold.name, of(fold.train), of(fold.test))


@pytest.fixture(scope="module")
def study(workplace: Path) -> Study:
    return study_of(workplace, "tasks=[{task: subtype, endpoint: subtype}, {task: survival, endpoint: os}]")


@pytest.fixture(scope="module")
def frames(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    return write(study, tmp_path_factory.mktemp("linear") / "fold")


def test_each_baseline_predicts_each_task_for_the_first_record_of_each_test_patient(study, frames):
    assert set(frames) == {"clinical", "omics", "clinical + omics"}
    test = study.folds.folds[0].test
    first = pd.DataFrame({"row": test, "patient": study.cohort.patients[test]}).drop_duplicates("patient")["row"]
    assert len(first) < len(test), "somebody is tested who came twice"
    for frame in frames.values():
        assert list(frame.columns) == ["row", "seen", *COLUMNS["subtype"], *COLUMNS["os"]]
        assert frame["row"].tolist() == first.tolist()
        assert set(frame["seen"]) == {EVERYTHING}


def test_who_has_no_label_of_a_task_gets_nothing_for_that_task_alone(study, frames):
    for frame in frames.values():
        rows = frame["row"].to_numpy()
        has_class = study.cohort.endpoint("subtype")["code"][rows] >= 0
        watched = np.isfinite(study.cohort.endpoint("os")["time"][rows])
        assert (has_class & ~watched).any() and (watched & ~has_class).any()
        for endpoint, known in (("subtype", has_class), ("os", watched)):
            for column in COLUMNS[endpoint]:
                np.testing.assert_array_equal(frame[column].notna(), known)


def expected(study: Study, baseline: str, endpoint: str, modalities: Sequence[str] | None = None) -> pd.DataFrame:
    """What a baseline predicts where it is asked for labelled patients alone, behind their rows."""
    parts = study.cohort.endpoint(endpoint)
    known_N = parts["code"] >= 0 if "code" in parts else np.isfinite(parts["time"])
    fold = study.folds.folds[0]
    mine = labelled(study, fold, known_N)
    inner = [labelled(study, one, known_N) for one in study.inner(fold)]
    [values] = predict(baseline, study.cohort, endpoint, mine, inner, modalities).values()
    return pd.DataFrame(values, index=mine.test)


def test_the_models_that_were_fitted_are_given_back(study, frames, tmp_path):
    models = write_linear(study, study.folds.folds[0], tmp_path)
    for baseline, frame in frames.items():
        assert list(models[baseline]) == list(COLUMNS)
        for endpoint, columns in COLUMNS.items():
            known = frame[frame[columns[0]].notna()]
            [values] = models[baseline][endpoint].predict(study.cohort, known["row"].to_numpy()).values()
            np.testing.assert_allclose(known[columns], values.reshape(len(known), -1))


@pytest.mark.parametrize("baseline", ["clinical", "omics", "clinical + omics"])
def test_values_are_those_of_the_baseline_on_one_labelled_record_of_each_patient(study, frames, baseline):
    frame = frames[baseline].set_index("row")
    for endpoint, columns in COLUMNS.items():
        of_endpoint = expected(study, baseline, endpoint)
        np.testing.assert_allclose(frame.loc[of_endpoint.index, columns], of_endpoint)


def test_only_what_may_be_seen_is_read_and_clinical_covariates_as_a_baseline_all_the_same(workplace, frames, tmp_path):
    study = study_of(workplace, "tasks=[{task: subtype, endpoint: subtype}]", "modalities=[mutation]")
    found = write(study, tmp_path / "fold")
    assert set(found) == set(frames)
    for baseline, reads in {"omics": ["mutation"], "clinical + omics": ["mutation", "clinical"]}.items():
        frame = found[baseline].set_index("row")
        of_mutations = expected(study, baseline, "subtype", reads)
        np.testing.assert_allclose(frame.loc[of_mutations.index, COLUMNS["subtype"]], of_mutations)
        everything = expected(study, baseline, "subtype")
        assert np.abs(everything - of_mutations).to_numpy().max() > 0.01


def test_of_several_kinds_of_event_each_has_a_column(workplace, tmp_path):
    """Every second event is a relapse: to a death that is censoring, and the other way round."""
    study = study_of(workplace, "tasks=[{task: survival, endpoint: os, form: intervals}]")
    parts, even = study.cohort.endpoint("os"), np.arange(len(study.cohort)) % 2 == 0

    def told(name: str, event: np.ndarray, **causes: dict[str, int]) -> pd.DataFrame:
        cohort = copy.copy(study.cohort)
        entry = {**study.cohort.manifest.endpoints["os"], **causes}
        cohort.manifest = study.cohort.manifest.model_copy(update={"endpoints": {"os": entry}})
        cohort.endpoint = lambda _: {**parts, "event": event}
        return write(replace(study, cohort=cohort), tmp_path / name)["clinical"]

    found = told("several", np.where(even, 2, 1) * parts["event"], causes={"death": 0, "relapse": 0})
    assert [column for column in found if "/" in column] == ["os/risk/death", "os/risk/relapse"]
    for cause, mine in {"death": ~even, "relapse": even}.items():
        alone = told(cause, mine * parts["event"])
        np.testing.assert_array_equal(found[f"os/risk/{cause}"], alone["os/risk"])
    assert not np.allclose(found["os/risk/death"], found["os/risk/relapse"], equal_nan=True)
