"""Leak detector: labels that mean nothing are told no better than by chance, and a planted patient is caught.

The cohort has fewer patients than inputs, so that a model that was fitted on its test patients would know them.
"""

from __future__ import annotations

import numpy as np
import pytest

from finetune.baselines import BASELINES, predict
from finetune.compare import averaged
from finetune.image_features import ImageFeatures
from finetune.splits import Fold, Folds, Records, SplitConfig, refuse_overlap
from foundation.cohort.folds import Folds as PublishedFolds
from foundation.cohort.folds import read_folds
from foundation.cohort.prepare import prepare
from foundation.cohort.simulate import simulate
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.measures import scores
from foundation.progress import Silent

CLASSES = 2
SHUFFLES = 8
STRAY = 0.06
"""How far from chance the mean over shuffles may be."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    folder = tmp_path_factory.mktemp("leaks")
    simulate(folder / "source", patients=100, seed=5, progress=lambda done, total: None)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    return PreparedCohort(folder / "cohort")


def measured(
    cohort: PreparedCohort, name: str, folds: Folds, images: ImageFeatures, leaking: bool
) -> tuple[float, list[float | None]]:
    """Mean AUROC of the folds and its interval; where leaking, the test patients are among those to fit on."""
    code = cohort.endpoint("subtype")["code"]
    parts = []
    for fold in folds.folds:
        fitted_on = Fold(fold.name, np.union1d(fold.train, fold.test), fold.test) if leaking else fold
        chance = predict(name, cohort, "subtype", fitted_on, folds.inner(fold), images=images)["chance"]
        parts.append((fold.test, scores.auroc(code[fold.test] == 1, chance[:, 1])))
    return scores.with_interval(averaged(parts), len(cohort), np.random.default_rng(0))


@pytest.mark.parametrize("name", list(BASELINES))
def test_shuffled_labels_are_told_by_chance_and_a_leak_is_noticed(cohort, monkeypatch, name):
    images = ImageFeatures(cohort)
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
    assert covered >= SHUFFLES - 2
    # The same pipeline with the test patients in training does not pass.
    assert np.mean(leaked) > 0.5 + STRAY


def test_a_patient_planted_in_both_sides_of_a_published_fold_is_caught(tmp_path):
    folds = PublishedFolds(files="fold{fold}*.csv")
    (tmp_path / "fold0.csv").write_text("patient,split\na,train\nb,train\nc,val\nd,val\n")
    (tmp_path / "fold0_more.csv").write_text("patient,split\na,val\n")
    paths = [("0", tmp_path / "fold0.csv"), ("0", tmp_path / "fold0_more.csv")]
    with pytest.raises(DataError, match="1 patients stand in another file of fold 0"):
        read_folds(folds, paths, set("abcd"))
    (tmp_path / "fold0.csv").write_text("patient,split\na,train\nb,train\nc,val\na,val\n")
    with pytest.raises(DataError, match="1 patients stand twice"):
        read_folds(folds, paths[:1], set("abcd"))
    # And where it came past the files: another record of a patient who is tested.
    config = SplitConfig(published=True)
    records = Records(np.array(list("aabcd"), dtype=object), np.full(5, ""), np.array([0, 0, 1, 0, 1]))
    made = Folds.make(config, records, 0, {"0": {"a": "val", "b": "train", "c": "train", "d": "val"}}).folds[0]
    planted = Fold("0", np.append(made.train, 1), np.setdiff1d(made.test, 1))
    with pytest.raises(DataError, match="1 patient on both sides"):
        refuse_overlap(records, config, planted)
