"""Linear baselines as predictions of a fold's tasks, and what they say of patients who did not teach them."""

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
from finetune.methods.baselines import fit, predict
from finetune.methods.held_out import TESTED, HeldOut
from finetune.methods.linear import MODELS, write_linear
from finetune.methods.linear_model import LinearModel
from finetune.run import make_study
from finetune.splits import Fold
from finetune.study import Study
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.linear.learners import LEARNERS, CoxLearner

COLUMNS = {"subtype": [f"subtype/probability/{name}" for name in "abc"], "os": ["os/risk"]}
"""Endpoint to the columns of its task."""


def study_of(workplace: Path, *changes: str) -> Study:
    return make_study(load_config(FinetuneConfig, workplace / "config.yaml", changes))


def write(study: Study, folder: Path) -> dict[str, pd.DataFrame]:
    """Baseline to what it predicts of the first fold."""
    folder.mkdir()
    write_linear(study, study.folds.folds[0], folder, keep=False)
    assert {path.suffix for path in folder.iterdir()} == {".parquet", ".safetensors"}
    return {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}


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
        columns = list(frame.columns)
        assert columns[:-12] == ["row", "seen", *COLUMNS["subtype"], *COLUMNS["os"]]
        assert all(column.startswith("os/survival_probability/") for column in columns[-12:])
        assert np.isfinite(frame.drop(columns="seen").to_numpy(dtype=float)).all(), "a label is not needed"
        assert frame["row"].tolist() == first.tolist()
        assert set(frame["seen"]) == {EVERYTHING}


def test_training_patients_are_spoken_of_by_fits_that_they_did_not_teach(study, tmp_path):
    fold = study.folds.folds[0]
    write(study, tmp_path / "fold")
    found = HeldOut.read(tmp_path / "fold" / "omics.safetensors")
    assert set(found.rows[found.inner == TESTED]) == set(study.one_each(fold.test))
    watched_N = np.isfinite(study.cohort.endpoint("os")["time"])
    whole = labelled(study, fold, watched_N)
    inner = [labelled(study, one, watched_N) for one in study.inner(fold)]
    model = fit("omics", study.cohort, "os", whole.train, inner, study.modalities)
    for number, one in enumerate(inner):
        # The penalty is that of all training patients; all else is learned from the others of the inner fold.
        class Same(CoxLearner):
            penalties = (model.parts[""].penalty[""],)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(LEARNERS, "survival", Same)
            expected = predict("omics", study.cohort, "os", one, [], study.modalities)["risk"]
        rows = found.rows[found.inner == number]
        known = np.isin(rows, one.test)
        said = found.at("os", rows)[:, 0].numpy()
        np.testing.assert_allclose(said[known], expected, rtol=1e-6)
        assert np.isnan(said[~known]).all() and (~known).any(), "who has no label is in no fold of the baseline"


def expected(study: Study, baseline: str, endpoint: str, modalities: Sequence[str] | None = None) -> pd.DataFrame:
    """What a baseline predicts where it is asked for labelled patients alone, behind their rows."""
    parts = study.cohort.endpoint(endpoint)
    known_N = parts["code"] >= 0 if "code" in parts else np.isfinite(parts["time"])
    fold = study.folds.folds[0]
    mine = labelled(study, fold, known_N)
    inner = [labelled(study, one, known_N) for one in study.inner(fold)]
    [values] = predict(baseline, study.cohort, endpoint, mine, inner, modalities).values()
    return pd.DataFrame(values, index=mine.test)


def test_on_request_the_models_are_kept(study, frames, tmp_path):
    write_linear(study, study.folds.folds[0], tmp_path, keep=True)
    for baseline, frame in frames.items():
        for endpoint, columns in COLUMNS.items():
            model = LinearModel.read(tmp_path / MODELS / baseline / endpoint)
            [values] = model.predict(study.cohort, frame["row"].to_numpy()).values()
            np.testing.assert_allclose(frame[columns], values.reshape(len(frame), -1))


@pytest.mark.parametrize("balanced", [True, False])
def test_classes_count_as_they_do_to_the_task(workplace, balanced, tmp_path, monkeypatch):
    """A stack of one that takes the rare class for common and one that does not would be wrong about both."""
    endpoint = PreparedCohort.endpoint

    def uneven(cohort: PreparedCohort, name: str) -> dict[str, np.ndarray]:
        return {"code": np.minimum(endpoint(cohort, name)["code"], 1)}

    monkeypatch.setattr(PreparedCohort, "endpoint", uneven)
    study = study_of(workplace, f"tasks=[{{task: subtype, endpoint: subtype, balanced: {str(balanced).lower()}}}]")
    write(study, tmp_path / "fold")
    found = HeldOut.read(tmp_path / "fold" / "clinical.safetensors")
    rows, _ = found.taught_none("subtype")
    share_K = found.at("subtype", rows).softmax(dim=1).mean(dim=0).numpy()
    np.testing.assert_allclose(share_K, [1 / 2, 1 / 2, 0] if balanced else [1 / 3, 2 / 3, 0], atol=0.04)


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


def test_of_several_kinds_of_event_each_has_a_log_hazard_and_a_risk(workplace, tmp_path):
    """Every second event is a relapse: to a death that is censoring, and the other way round."""
    study = study_of(workplace, "tasks=[{task: survival, endpoint: os, form: intervals, intervals: 3}]")
    parts, even = study.cohort.endpoint("os"), np.arange(len(study.cohort)) % 2 == 0

    def told(name: str, event: np.ndarray, **causes: dict[str, int]) -> tuple[pd.DataFrame, np.ndarray]:
        cohort = copy.copy(study.cohort)
        entry = {**study.cohort.manifest.endpoints["os"], **causes}
        cohort.manifest = study.cohort.manifest.model_copy(update={"endpoints": {"os": entry}})
        cohort.endpoint = lambda _: {**parts, "event": event}
        frame = write(replace(study, cohort=cohort), tmp_path / name)["clinical"]
        held_out = HeldOut.read(tmp_path / name / "clinical.safetensors")
        return frame, held_out.at("os", frame["row"].to_numpy()).numpy()

    found, log_hazard_NCT = told("several", np.where(even, 2, 1) * parts["event"], causes={"death": 0, "relapse": 0})
    assert [column for column in found if "/risk" in column] == ["os/risk/death", "os/risk/relapse"]
    log_hazard_NCT = log_hazard_NCT.reshape(len(found), 2, -1)
    for c, mine in enumerate((~even, even)):
        _, alone_NT = told(f"cause {c}", mine * parts["event"])
        np.testing.assert_array_equal(log_hazard_NCT[:, c, 0], alone_NT[:, 0])
        assert (np.ptp(log_hazard_NCT[:, c], axis=1) == 0).all(), "hazards are proportional"
    assert not np.allclose(log_hazard_NCT[:, 0], log_hazard_NCT[:, 1])
    chances = found[["os/risk/death", "os/risk/relapse"]].to_numpy()
    assert ((chances > 0) & (chances.sum(axis=1, keepdims=True) < 1)).all()
