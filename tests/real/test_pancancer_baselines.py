"""Linear baselines on the published folds of nine cancers, beside the table that was published with the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.evaluation.compare import averaged, compare
from finetune.methods.baselines import predict
from finetune.splits import Folds, Records, SplitConfig, within_groups
from finetune.tasks.base import tasks
from finetune.tasks.survival import SurvivalConfig
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.metrics.score import Score, with_interval
from foundation.metrics.survival_scores import concordance
from foundation.progress import Silent

CONFIG = Path(__file__).parents[2] / "configs" / "cohorts" / "tcga-pancancer.yaml"

PUBLISHED = {"omics": 0.623, "clinical": 0.683, "clinical + omics": 0.700}
"""Mean over cancers of the mean over folds of Harrell's C, from the README of the data."""

TOLERANCE = 0.015

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cohort(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    out = tmp_path_factory.mktemp("pancancer")
    prepare(CONFIG, out=out, root=real_data / "tcga_pancancer", workers=2, progress=Silent())
    return PreparedCohort(out)


def made(cohort: PreparedCohort, time: np.ndarray, event: np.ndarray) -> Folds:
    task = tasks.build(SurvivalConfig(endpoint="os"), cohort.manifest.endpoints)
    strata = within_groups(cohort.groups, task.strata({"os": {"time": time, "event": event}}))
    return Folds.make(SplitConfig(published=True), Records(cohort.patients, cohort.sites, strata), 0, cohort.folds)


def risks(cohort: PreparedCohort, folds: Folds, baseline: str) -> np.ndarray:
    """[N] out of fold."""
    risk = np.full(len(cohort), np.nan)
    for fold in folds.folds:
        risk[fold.test] = predict(baseline, cohort, "os", fold, folds.inner(fold))["risk"]
    return risk


def mean_of_cancers(
    cohort: PreparedCohort, folds: Folds, risk: np.ndarray, time: np.ndarray, event: np.ndarray
) -> Score:
    """Mean over cancers of the mean over folds of the C of a cancer's test patients."""
    everyone = np.arange(len(cohort))
    cancers = []
    for cancer in np.unique(cohort.groups):
        tests = [fold.test[cohort.groups[fold.test] == cancer] for fold in folds.folds]
        parts = [(at, concordance(risk[at], time[at], event[at], np.zeros(len(at)))) for at in tests]
        cancers.append((everyone, averaged(parts)))
    return averaged(cancers)


def test_baselines_are_near_the_published_table(cohort):
    survival = cohort.endpoint("os")
    folds = made(cohort, **survival)
    assert folds.left_out == {}
    found = {name: mean_of_cancers(cohort, folds, risks(cohort, folds, name), **survival) for name in PUBLISHED}
    means = {name: float(score(np.ones((1, len(cohort))))[0]) for name, score in found.items()}
    for name, published in PUBLISHED.items():
        assert means[name] == pytest.approx(published, abs=TOLERANCE), name
    comparison = compare(
        found["clinical + omics"], found["clinical"], len(cohort), np.random.default_rng(0), resamples=300
    )
    assert comparison.difference > 0


def test_shuffled_survival_gives_chance(cohort, monkeypatch):
    survival = cohort.endpoint("os")
    order = np.arange(len(cohort))
    random = np.random.default_rng(0)
    for cancer in np.unique(cohort.groups):
        here = np.flatnonzero(cohort.groups == cancer)
        order[here] = random.permutation(here)
    shuffled = {part: values[order] for part, values in survival.items()}
    monkeypatch.setattr(cohort, "endpoint", lambda name: shuffled)
    folds = made(cohort, **shuffled)
    score = mean_of_cancers(cohort, folds, risks(cohort, folds, "clinical + omics"), **shuffled)
    _, (low, high) = with_interval(score, len(cohort), np.random.default_rng(0))
    assert low <= 0.5 <= high
