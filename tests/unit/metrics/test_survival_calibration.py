"""Calibration of survival: of predictions that are calibrated as they were made, against lifelines, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import kstest

from foundation.metrics.survival_calibration import (
    BINS,
    d_calibration,
    events_by,
    hazard_slope,
    observed_by_expected,
    one_calibration,
    patients_by_bin,
)
from foundation.metrics.survival_curves import kaplan_meier

with warnings.catch_warnings():
    # Third-party packages import parts of torch and pandas that are on their way out.
    warnings.simplefilter("ignore")
    from lifelines import CoxPHFitter

AT = 0.7


class Made:
    """Patients with exponential times, whose survival is predicted as it is."""

    def __init__(self, random: np.random.Generator, patients: int, censored_by: float = np.inf):
        self.log_hazard = 0.7 * random.standard_normal(patients)
        time = random.exponential(np.exp(-self.log_hazard))
        watched = random.uniform(0, censored_by, patients) if np.isfinite(censored_by) else np.full(patients, np.inf)
        self.time, self.event = np.minimum(time, watched), (time <= watched).astype(float)
        self.groups = np.full(patients, "")

    def free(self, time, too_high: float = 1.0):
        return np.exp(-time * np.exp(self.log_hazard) * too_high)


def draws(test, patients, censored_by, seed=0, times=300):
    random = np.random.default_rng(seed)
    return np.array([test(Made(random, patients, censored_by)) for _ in range(times)])


def d_of(made, too_high=1.0):
    return d_calibration(made.free(made.time, too_high), made.event)


def one_of(made, too_high=1.0):
    return one_calibration(AT, made.free(AT, too_high), made.time, made.event)


def test_calibrated_predictions_give_uniform_p_values():
    assert kstest(draws(d_of, 200, np.inf), "uniform").pvalue > 0.01
    assert kstest(draws(one_of, 200, np.inf), "uniform").pvalue > 0.01


def test_censoring_does_not_make_calibrated_predictions_rejected():
    # A third and more than a half are censored.
    for censored_by in (3.0, 1.2):
        assert np.mean(draws(d_of, 200, censored_by) < 0.05) <= 0.05
        # Of 300, more than 26 below .05 happen in 1 of 500.
        assert np.mean(draws(one_of, 200, censored_by) < 0.05) < 27 / 300


def test_hazards_that_are_predicted_too_high_are_rejected():
    for test in (d_of, one_of):
        assert np.mean(draws(lambda made, t=test: t(made, 1.6), 300, 3.0, times=50) < 0.05) > 0.9


def test_patients_by_bin_by_hand():
    # The event at .25 counts there; who is censored at .25 has it below: .1, .1 and .05 of .25.
    np.testing.assert_allclose(patients_by_bin(np.array([0.25]), np.array([1.0])), np.eye(BINS)[2])
    spread = patients_by_bin(np.array([0.25]), np.array([0.0]))
    np.testing.assert_allclose(spread, [0.4, 0.4, 0.2] + [0] * 7)
    np.testing.assert_allclose(patients_by_bin(np.array([1.0]), np.array([0.0])), np.full(BINS, 0.1))
    for event in (0.0, 1.0):
        np.testing.assert_allclose(patients_by_bin(np.array([0.0]), np.array([event])), np.eye(BINS)[0])
    assert np.isnan(d_calibration(np.zeros(0), np.zeros(0)))


@given(st.integers(0, 10_000))
def test_nobody_is_lost_in_bins(seed):
    made = Made(np.random.default_rng(seed), 30, 1.5)
    count = patients_by_bin(made.free(made.time), made.event)
    assert count.sum() == pytest.approx(30) and (count >= 0).all()


def test_1_calibration_without_censoring_is_the_test_of_hosmer_and_lemeshow():
    from scipy.stats import chi2

    made = Made(np.random.default_rng(0), 500)
    free, late = made.free(AT), made.time > AT
    statistic = 0.0
    for rows in np.array_split(np.argsort(free), 10):
        expected = free[rows].mean()
        statistic += (late[rows].sum() - len(rows) * expected) ** 2 / (len(rows) * expected * (1 - expected))
    assert one_of(made) == pytest.approx(chi2.sf(statistic, 10))


def test_1_calibration_of_few_or_of_those_who_were_not_followed_is_unknown():
    made = Made(np.random.default_rng(0), 500)
    assert np.isnan(one_calibration(AT, made.free(AT)[:9], made.time[:9], made.event[:9]))
    gone = made.time < AT
    assert np.isnan(one_calibration(AT, made.free(AT)[gone], made.time[gone], 0 * made.event[gone]))
    assert np.isnan(one_calibration(AT, np.ones(500), made.time, made.event)), "no event is expected"


def test_slope_of_calibrated_hazards_is_1_and_of_halved_ones_2():
    made = Made(np.random.default_rng(0), 20_000, 3.0)
    one = np.ones((1, 20_000))
    found = hazard_slope(made.log_hazard, made.time, made.event, made.groups)(one)[0]
    assert found == pytest.approx(1, abs=0.05)
    half = hazard_slope(made.log_hazard / 2 + 3, made.time, made.event, made.groups)(one)[0]
    assert half == pytest.approx(2 * found)
    # Of any one time, the survival probability tells the same.
    cumulated = np.log(-np.log(made.free(0.3)))
    assert hazard_slope(cumulated, made.time, made.event, made.groups)(one)[0] == pytest.approx(found)


def test_a_slope_is_that_of_lifelines_within_strata():
    random = np.random.default_rng(1)
    made = Made(random, 300, 2.0)
    stratum = random.integers(0, 4, 300)
    # Between strata the predictions are wrong, which does not matter.
    risk = made.log_hazard + 2 * stratum
    frame = pd.DataFrame({"risk": risk, "time": made.time, "event": made.event, "stratum": stratum})
    expected = CoxPHFitter().fit(frame, "time", "event", strata=["stratum"]).params_["risk"]
    found = hazard_slope(risk, made.time, made.event, stratum.astype(str))(np.ones((1, 300)))[0]
    assert found == pytest.approx(expected, rel=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 1.0, 30.0]))
def test_a_slope_is_where_the_partial_likelihood_is_highest_with_equal_times(seed, scale):
    random = np.random.default_rng(seed)
    made = Made(random, 40, 2.0)
    time, stratum = np.ceil(4 * made.time), random.integers(0, 2, 40)

    def loss(slope):
        total = 0.0
        for i in np.flatnonzero(made.event == 1):
            at_risk = (time >= time[i]) & (stratum == stratum[i])
            total += np.logaddexp.reduce(slope * made.log_hazard[at_risk]) - slope * made.log_hazard[i]
        return total

    found = hazard_slope(scale * made.log_hazard, time, made.event, stratum)(np.ones((1, 40)))[0] * scale
    best = minimize_scalar(loss, bracket=(0, 1), tol=1e-10).x
    if abs(best) < 20:
        assert found == pytest.approx(best, abs=1e-4)
    else:
        assert np.isnan(found)


def test_what_has_no_slope_is_unknown():
    time, event, one = np.arange(1.0, 9), np.ones(8), np.ones((1, 8))
    for risk in (-time, time, np.zeros(8), np.full(8, 0.1)):
        assert np.isnan(hazard_slope(risk, time, event, np.zeros(8))(one)[0])
    mixed = np.array([1.0, 2, 0, 3, 1, 2, 5, 4])
    assert np.isfinite(hazard_slope(mixed, time, event, np.zeros(8))(one)[0])
    assert np.isnan(hazard_slope(mixed, time, 0 * event, np.zeros(8))(one)[0])
    assert np.isnan(hazard_slope(mixed, time, event, np.arange(8))(one)[0]), "nobody is compared with anybody"
    resamples = np.zeros((2, 8))
    resamples[0, 3] = 8
    assert np.isnan(hazard_slope(mixed, time, event, np.zeros(8))(resamples)).all()


@given(st.integers(0, 10_000))
def test_observed_events_are_those_of_kaplan_meier_in_each_group(seed):
    random = np.random.default_rng(seed)
    made = Made(random, 60, 2.0)
    time, groups = np.ceil(6 * made.time), random.choice(["a", "b"], 60)
    free, observed, expected = made.free(AT), 0.0, 0.0
    for group in "ab":
        here = groups == group
        if time[here].max() >= 4:
            observed += here.sum() * (1 - kaplan_meier(time[here], made.event[here]).at(np.array([4.0]))[0][0])
            expected += np.sum(1 - free[here])
    found = events_by(4.0, free, time, made.event, groups, np.ones((1, 60)))
    assert (found[0][0], found[1][0]) == pytest.approx((observed, expected))
    ratio = observed_by_expected(4.0, free, time, made.event, groups)(np.ones((1, 60)))[0]
    assert ratio == pytest.approx(observed / expected)


def test_a_group_that_nobody_was_followed_in_for_so_long_is_left_out():
    time, event, free = np.array([1.0, 2, 9, 9]), np.array([1.0, 0, 1, 1]), np.full(4, 0.5)
    groups = np.array(["a", "a", "b", "b"])
    observed, expected = events_by(
        5.0, free, time, event, groups, np.array([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    )
    assert (observed[0], expected[0]) == (0, 1), "of b alone"
    assert (observed[1], expected[1]) == (0, 0)
    assert (observed[2], expected[2]) == (1, 0.5), "everybody had the event, so it is known"
    assert np.isnan(observed_by_expected(5.0, free, time, event, groups)(np.array([[1.0, 1, 0, 0]]))[0])


@pytest.mark.parametrize("patients", [0, 30])
def test_nobody_has_no_score_and_the_others_keep_theirs(patients):
    made = Made(np.random.default_rng(0), patients, 3.0)
    scores = [
        hazard_slope(made.log_hazard, made.time, made.event, made.groups),
        observed_by_expected(AT, made.free(AT), made.time, made.event, made.groups),
    ]
    for score in scores:
        found = score(np.array([[0.0] * patients, [1.0] * patients]))
        assert np.isnan(found[0])
        assert np.isfinite(found[1]) == (patients > 0)
        if patients:
            assert found[1] == pytest.approx(score(np.ones((1, patients)))[0])


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_weight_is_that_many_patients(seed):
    random = np.random.default_rng(seed)
    made = Made(random, 40, 2.0)
    time, groups = np.ceil(6 * made.time), random.choice(["a", "b"], 40)
    weights = random.multinomial(40, np.full(40, 1 / 40), size=3).astype(float)

    def scores(rows):
        yield hazard_slope(made.log_hazard[rows], time[rows], made.event[rows], groups[rows])
        yield observed_by_expected(4.0, made.free(AT)[rows], time[rows], made.event[rows], groups[rows])

    for number, score in enumerate(scores(np.arange(40))):
        for row, found in zip(weights.astype(int), score(weights), strict=True):
            rows = np.repeat(np.arange(40), row)
            again = list(scores(rows))[number](np.ones((1, 40)))[0]
            assert found == pytest.approx(again, rel=1e-5, abs=1e-6, nan_ok=True)


def test_a_stratum_of_low_hazards_is_not_lost_beside_one_of_high_ones():
    """In the first stratum but one pair is in the wrong order, so that hazards differ by e to the 90."""
    made = Made(np.random.default_rng(0), 30)
    risk, time = np.append(-np.arange(30.0), made.log_hazard), np.append(np.arange(30.0), made.time)
    risk[[3, 4]] = risk[[4, 3]]
    stratum, event, first = np.repeat([0, 1], 30), np.ones(60), np.repeat([1.0, 0.0], 30)
    found = hazard_slope(risk, time, event, stratum)(np.stack([first, 1 - first, np.ones(60)]))
    alone = [hazard_slope(risk[rows], time[rows], event[rows], stratum[rows]) for rows in (stratum == 0, stratum == 1)]
    expected = [one(np.ones((1, 30)))[0] for one in alone]
    assert found[:2] == pytest.approx(expected, rel=1e-6)
    # Both together are where their likelihoods are highest together.
    derivative = [
        sum(
            risk[i] - np.average(risk[at_risk], weights=np.exp(slope * (risk[at_risk] - risk[at_risk].max())))
            for i in range(60)
            for at_risk in [(stratum == stratum[i]) & (time >= time[i])]
        )
        for slope in (found[2] - 1e-6, found[2] + 1e-6)
    ]
    assert derivative[0] > 0 > derivative[1]


def test_patients_with_one_hazard_have_no_slope_however_sums_are_rounded():
    random = np.random.default_rng(0)
    risk = np.repeat(random.standard_normal(50), 2)
    score = hazard_slope(risk, random.random(100), np.ones(100), np.zeros(100))
    weights = np.zeros((50, 100))
    weights[np.repeat(np.arange(50), 2), np.arange(100)] = random.integers(1, 9, 100)
    assert np.isnan(score(weights)).all()
