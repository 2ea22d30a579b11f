"""Leak detector: labels that mean nothing are told no better than by chance, and nobody is tested who was learned from.

The cohort has fewer patients than inputs, so that a model that was fitted on its test patients would know them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.evaluation.compare import averaged
from finetune.leakage import refuse_overlap
from finetune.methods.baselines import BASELINES, FOUND, predict
from finetune.methods.choose import Learning
from finetune.methods.image_features import ImageFeatures
from finetune.report.answer import headlines
from finetune.splits import Fold, Folds, Records, SplitConfig
from foundation.cohort.folds import PublishedFolds, read_folds
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.metrics import class_scores, score

CLASSES = 2
SHUFFLES = 16
STRAY = 0.06
"""How far from chance the mean over shuffles may be: that of one strays by 0.11, of 16 by 0.027."""


@pytest.fixture(scope="module")
def scanned(simulated: Path) -> PreparedCohort:
    """With images."""
    return PreparedCohort(simulated / "cohort")


def measured(
    cohort: PreparedCohort, name: str, folds: Folds, images: ImageFeatures, leaking: bool
) -> tuple[float, list[float | None]]:
    """Mean AUROC of the folds and its interval; where leaking, the test patients are among those to fit on."""
    code = cohort.endpoint("subtype")["code"]
    parts = []
    for fold in folds.folds:
        fitted_on = Fold(fold.name, np.union1d(fold.train, fold.test), fold.test) if leaking else fold
        chance = predict(name, cohort, "subtype", fitted_on, folds.inner(fold), images=images)["probability"]
        parts.append((fold.test, class_scores.auroc(code[fold.test] == 1, chance[:, 1])))
    return score.with_interval(averaged(parts), len(cohort), np.random.default_rng(0))


@pytest.mark.parametrize("name", [name for name, needs in BASELINES.items() if FOUND not in needs])
def test_shuffled_labels_are_told_by_chance_and_a_leak_is_noticed(scanned, monkeypatch, name):
    cohort, images = scanned, ImageFeatures(scanned)
    values, covered, leaked = [], 0, []
    for seed in range(SHUFFLES):
        code = np.random.default_rng(seed).permutation(np.arange(len(cohort)) % CLASSES)
        monkeypatch.setattr(cohort, "endpoint", lambda _, code=code: {"code": code})
        folds = Folds.make(SplitConfig(folds=3, inner_folds=3), Records(cohort.patients, cohort.sites, code), seed)
        value, (low, high) = measured(cohort, name, folds, images, leaking=False)
        values.append(value)
        assert low is not None and high is not None
        covered += low <= 0.5 <= high
        leaked.append(measured(cohort, name, folds, images, leaking=True)[0])
    assert abs(np.mean(values) - 0.5) < STRAY
    assert covered >= 3 / 4 * SHUFFLES
    # The same pipeline with the test patients in training does not pass.
    assert np.mean(leaked) > 0.5 + STRAY


def test_a_patient_planted_in_both_sides_of_a_published_fold_is_caught(tmp_path):
    folds = PublishedFolds(files="fold{fold}*.csv")
    (tmp_path / "fold0.csv").write_text("patient,split\na,train\nb,train\nc,val\nd,val\n")
    (tmp_path / "fold0_more.csv").write_text("patient,split\na,val\n")
    paths = [("0", tmp_path / "fold0.csv"), ("0", tmp_path / "fold0_more.csv")]
    with pytest.raises(DataError, match="1 patients are also in another file of fold 0"):
        read_folds(folds, paths, set("abcd"))
    (tmp_path / "fold0.csv").write_text("patient,split\na,train\nb,train\nc,val\na,val\n")
    with pytest.raises(DataError, match="1 patient with several rows"):
        read_folds(folds, paths[:1], set("abcd"))
    # And where it came past the files: another record of a patient who is tested.
    config = SplitConfig(published=True)
    records = Records(np.array(list("aabcd"), dtype=object), np.full(5, ""), np.array([0, 0, 1, 0, 1]))
    made = Folds.make(config, records, 0, {"0": {"a": "val", "b": "train", "c": "train", "d": "val"}}).folds[0]
    planted = Fold("0", np.append(made.train, 1), np.setdiff1d(made.test, 1))
    with pytest.raises(DataError, match="1 patient in both training and test"):
        refuse_overlap(records.sides(config, planted), planted.name)


SUBTYPE = "tasks=[{task: subtype, endpoint: subtype}]"
EVERYTHING = "reads=[towers, modalities, values, images]"
PUBLISHED = ["splits.published=true", "allow_seen=true"]


def with_endpoint(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Endpoints are what `change(cohort, name, parts)` makes of them."""
    endpoint = PreparedCohort.endpoint
    monkeypatch.setattr(PreparedCohort, "endpoint", lambda self, name: change(self, name, endpoint(self, name)))


def test_a_network_tells_shuffled_labels_by_chance(tune, untrained, monkeypatch):
    """Every parameter is trained, and what to choose is chosen, on labels that belong to somebody else."""
    areas = []
    for seed in range(3):

        def shuffled(cohort, name, parts, seed=seed):
            _, patient = np.unique(cohort.patients.astype(str), return_inverse=True)
            return {"code": np.random.default_rng(seed).permutation(patient.max() + 1)[patient] % 3}

        with monkeypatch.context() as patch:
            with_endpoint(patch, shuffled)
            metrics, _ = tune(*untrained, SUBTYPE, EVERYTHING, "fit.epochs=6", "fit.optimiser.learning_rate=1e-2")
        areas.append([found["metrics"]["auroc"]["mean"] for found in (metrics, metrics["kept"])])
    # One such area of 60 patients strays by .05, the mean of three by .03.
    assert (np.abs(np.mean(areas, axis=0) - 0.5) < 0.1).all()


def test_whom_the_model_has_seen_trains_and_is_never_tested(tune, seen):
    metrics, folder = tune(SUBTYPE)
    assert not seen & set(pd.read_parquet(folder / "predictions.parquet")["patient"])
    assert metrics["pretrain"] == {"from": "path", "tested_though_seen": 0}
    used = metrics["splits"]["patients"]
    assert 0 < metrics["splits"]["seen_train_only"] < used
    for fold in metrics["splits"]["folds"]:
        assert fold["train"] + fold["test"] == used
    assert "seen" not in " ".join(headlines(metrics))


def test_published_folds_that_test_whom_the_model_has_seen_are_refused_unless_allowed(tune, seen):
    with pytest.raises(DataError, match=r"was pretrained on \d+ of the \d+ patients") as caught:
        tune(SUBTYPE, "splits.published=true")
    assert "allow_seen: true" in caught.value.fix
    metrics, folder = tune(SUBTYPE, *PUBLISHED)
    tested = seen & set(pd.read_parquet(folder / "predictions.parquet")["patient"])
    assert metrics["pretrain"]["tested_though_seen"] == len(tested) > 1
    [_, told] = headlines(metrics)
    assert told.startswith(f"{len(tested)} patients of those tested were already seen in pretraining")
    assert f"{len(tested)} patients of those tested were already seen" in (folder / "report.html").read_text()


def test_a_model_that_does_not_say_whom_it_has_seen_is_taken_to_have_seen_everybody(tune, workplace, tmp_path):
    model = Path(shutil.copytree(workplace / "model", tmp_path / "model"))
    (model / "patients.json").unlink()
    with pytest.raises(DataError, match="does not say which patients") as caught:
        tune(SUBTYPE, f"pretrain={model}", "splits.published=true")
    assert "allow_seen" in caught.value.fix


@pytest.mark.parametrize("reads", ["reads=[]", EVERYTHING])
def test_nothing_of_the_test_patients_is_read_before_they_are_predicted(tune, monkeypatch, reads):
    """Folds are published, because those that are made spread the outcomes of everybody evenly."""
    changes = [*PUBLISHED, reads, "search.inner_folds=1", "fit.epochs=2", "fit.optimiser.learning_rate=1e-2"]
    gains = Learning._gains

    def trained(learning, values):
        """So few gain nothing, but trained it must be; how long is chosen as ever."""
        return np.append(-np.inf, gains(learning, values)[1:])

    monkeypatch.setattr(Learning, "_gains", trained)
    monkeypatch.setattr(Learning, "_teachers", lambda learning, *_: tuple(learning.study.weights))

    def predicted() -> dict[str, pd.DataFrame]:
        metrics, folder = tune(*changes)
        assert all(choice["epochs"] > 0 for choice in metrics["chosen"])
        table = pd.read_parquet(folder / "predictions.parquet")
        return {str(fold): here.reset_index(drop=True) for fold, here in table.groupby("fold")}

    before = predicted()

    def exchanged(cohort, name, parts):
        """Whoever is tested in fold 0 gets the outcome of another who is."""
        split = cohort.folds["0"]
        known = np.isfinite(parts["time"]) if "time" in parts else parts.get("code", np.zeros(len(cohort))) >= 0
        rows = np.flatnonzero([split[patient] == "val" for patient in cohort.patients] & known)
        changed = {part: values.copy() for part, values in parts.items()}
        for part, values in parts.items():
            changed[part][rows] = values[np.roll(rows, 1)]
        return changed

    with_endpoint(monkeypatch, exchanged)
    after = predicted()
    pd.testing.assert_frame_equal(after["0"], before["0"], check_exact=True)
    assert not after["1"].equals(before["1"]), "there, they train"
