"""Differences between predictions are those of loops over resampled patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluation.compare import averaged, compare
from foundation.metrics import class_scores, survival_scores


def slow_concordance(risk, time, event, groups):
    won = known = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if groups[i] != groups[j] or not event[i] or i == j:
                continue
            if time[i] < time[j] or (time[i] == time[j] and not event[j]):
                known += 1
                won += (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
    return won / known if known else np.nan


class Cohort:
    """Patients of two cancers in three folds, and two predictions of each, the first closer to the truth."""

    def __init__(self, seed: int, patients: int, noise: tuple[float, float] = (0.5, 2.0)) -> None:
        random = np.random.default_rng(seed)
        truth = random.standard_normal(patients)
        self.time = np.ceil(10 * np.exp(-truth))
        self.event = random.integers(0, 2, patients)
        self.groups = random.integers(0, 2, patients).astype(str)
        self.fold = random.integers(0, 3, patients)
        self.risks = [truth + width * random.standard_normal(patients) for width in noise]

    def score(self, risk):
        parts = []
        for k in range(3):
            at = np.flatnonzero(self.fold == k)
            parts.append((at, survival_scores.concordance(risk[at], self.time[at], self.event[at], self.groups[at])))
        return averaged(parts)

    def slow(self, risk, drawn):
        of_fold = []
        for k in range(3):
            at = drawn[self.fold[drawn] == k]
            of_fold.append(slow_concordance(risk[at], self.time[at], self.event[at], self.groups[at]))
        known = [value for value in of_fold if np.isfinite(value)]
        return np.mean(known) if known else np.nan


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(4, 30))
def test_a_resampled_mean_over_folds_is_that_of_patients_repeated_one_by_one(seed, patients):
    cohort = Cohort(seed, patients)
    random = np.random.default_rng(seed)
    draws = [random.integers(0, patients, patients) for _ in range(4)]
    weights = np.stack([np.bincount(drawn, minlength=patients) for drawn in draws]).astype(float)
    expected = [cohort.slow(cohort.risks[0], drawn) for drawn in draws]
    np.testing.assert_allclose(cohort.score(cohort.risks[0])(weights), expected)


def test_a_comparison_is_what_a_loop_over_resamples_gives():
    cohort = Cohort(1, 40)
    resamples = 60
    found = compare(*map(cohort.score, cohort.risks), 40, np.random.default_rng(5), resamples)
    weights = np.random.default_rng(5).multinomial(40, np.full(40, 1 / 40), size=resamples)
    first, second = (
        np.array([cohort.slow(risk, np.repeat(np.arange(40), row)) for row in weights]) for risk in cohort.risks
    )
    drawn = first - second
    everyone = np.arange(40)
    assert found.difference == pytest.approx(
        cohort.slow(cohort.risks[0], everyone) - cohort.slow(cohort.risks[1], everyone)
    )
    assert found.ci95 == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    assert found.p_value == pytest.approx(min(1, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / 61))


def test_means_of_means_weigh_cancers_alike():
    one, other = class_scores.auroc(np.array([True, False]), np.array([1.0, 0])), lambda weights: np.zeros(len(weights))
    nested = averaged([(np.arange(4), averaged([([0, 1], one), ([2, 3], one)])), (np.arange(4, 6), other)])
    assert nested(np.ones((1, 6)))[0] == 0.5


def test_a_patient_in_several_repeats_is_drawn_into_all_of_them():
    value = np.array([1.0, 2.0, 4.0])

    def mean_of(positions):
        return lambda weights: weights @ value[positions] / weights.sum(axis=1)

    repeats = averaged([([0, 1, 2], mean_of([0, 1, 2])), ([2, 0], mean_of([2, 0]))])
    assert repeats(np.array([[0.0, 1.0, 3.0]]))[0] == pytest.approx((14 / 4 + 4) / 2)


def test_equal_predictions_differ_by_nothing():
    cohort = Cohort(0, 60)
    same = cohort.score(cohort.risks[0])
    found = compare(same, same, 60, np.random.default_rng(0), 200)
    assert (found.difference, found.ci95, found.p_value) == (0, (0, 0), 1)


def test_a_clearly_better_prediction_is_found_better_and_the_other_way_round():
    cohort = Cohort(2, 200)
    first, second = map(cohort.score, cohort.risks)
    found, reverse = (compare(*pair, 200, np.random.default_rng(0)) for pair in ((first, second), (second, first)))
    assert found.ci95[0] > 0
    assert found.p_value < 0.01
    assert reverse.difference == -found.difference
    assert reverse.p_value == found.p_value


def test_two_predictions_of_the_same_worth_are_seldom_told_apart():
    told = 0
    for seed in range(100):
        cohort = Cohort(seed, 80, noise=(1.0, 1.0))
        found = compare(*map(cohort.score, cohort.risks), 80, np.random.default_rng(seed), 300)
        told += found.p_value < 0.05
    assert told <= 12


def test_where_hardly_any_resample_has_a_score_there_is_no_interval():
    # Both of the two patients who are scored are drawn in about four of ten resamples.
    score = averaged([([0, 1], class_scores.auroc(np.array([True, False]), np.array([1.0, 0])))])
    found = compare(score, score, 9, np.random.default_rng(0))
    assert (found.difference, found.ci95, found.p_value) == (0, (None, None), None)
