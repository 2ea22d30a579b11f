"""Slopes and intercepts against scikit-learn and scipy, of predictions whose calibration is known, and over weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit, softmax
from scipy.stats import linregress
from sklearn.linear_model import LogisticRegression

from foundation.metrics.calibration import (
    LEAST_PROBABILITY,
    linear_intercept,
    linear_slope,
    logistic_intercept,
    logistic_slope,
)

PATIENTS = 40


def of_all(score, patients):
    return float(score(np.ones((1, patients)))[0])


def binary(seed, patients=PATIENTS, sharpness=1.0, shift=0.0):
    """Whether it is so, and a probability of it whose log odds are the true ones times `sharpness` plus `shift`."""
    random = np.random.default_rng(seed)
    odds = 1.5 * random.standard_normal(patients)
    return random.random(patients) < expit(odds), expit(sharpness * odds + shift)


def test_calibrated_classes_have_slope_1_and_intercept_0_and_halved_log_odds_slope_2():
    true, probability = binary(0, 100_000)
    halved, shifted = expit(logit(probability) / 2), expit(logit(probability) - 0.7)
    of_slope = {name: of_all(logistic_slope(true[:, None], p[:, None]), len(true)) for name, p in [
        ("calibrated", probability), ("halved", halved), ("shifted", shifted)
    ]}  # fmt: skip
    assert of_slope["calibrated"] == pytest.approx(1, abs=0.03)
    assert of_slope["halved"] == pytest.approx(2 * of_slope["calibrated"], rel=1e-6)
    assert of_slope["shifted"] == pytest.approx(of_slope["calibrated"], rel=1e-6), "a slope knows nothing of the level"
    assert of_all(logistic_intercept(true, probability), len(true)) == pytest.approx(0, abs=0.03)
    assert of_all(logistic_intercept(true, shifted), len(true)) == pytest.approx(0.7, abs=0.03)


def test_several_calibrated_classes_have_slope_1_and_overconfident_ones_less():
    random = np.random.default_rng(0)
    odds = random.standard_normal((60_000, 4)) + np.array([0, 1, -1, 0])
    probability = softmax(odds, axis=1)
    code = (random.random((len(odds), 1)) > probability.cumsum(axis=1)[:, :-1]).sum(axis=1)
    true = code[:, None] == np.arange(4)
    assert of_all(logistic_slope(true, probability), len(code)) == pytest.approx(1, abs=0.03)
    assert of_all(logistic_slope(true, softmax(2 * odds, axis=1)), len(code)) < 0.6
    for k in range(4):
        assert of_all(logistic_intercept(true[:, k], probability[:, k]), len(code)) == pytest.approx(0, abs=0.05)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 8.0]), st.sampled_from([-3.0, 0.0, 3.0]))
def test_binary_slope_and_intercept_are_those_of_scikit_learn_and_of_a_root(seed, sharpness, shift):
    true, probability = binary(seed, PATIENTS, sharpness, shift)
    if true.all() or not true.any():
        return
    odds = logit(np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    inputs = (odds - odds.mean()) / odds.std()
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=500).fit(inputs[:, None], true)
    found = of_all(logistic_slope(true[:, None], probability[:, None]), PATIENTS)
    assert found == pytest.approx(model.coef_[0, 0] / odds.std(), rel=1e-5, abs=1e-8)
    root = brentq(lambda a: np.sum(true - expit(odds + a)), -60, 60, xtol=1e-12)
    assert of_all(logistic_intercept(true, probability), PATIENTS) == pytest.approx(root, abs=1e-6)


def test_one_slope_for_several_classes_is_where_their_likelihoods_together_are_highest():
    random = np.random.default_rng(3)
    probability = softmax(2 * random.standard_normal((PATIENTS, 3)), axis=1)
    code = random.integers(0, 3, PATIENTS)
    true, odds = code[:, None] == np.arange(3), logit(probability)

    def loss(parameters):
        expected = parameters[0] * odds + parameters[1:]
        return np.sum(np.logaddexp(0, np.where(true, -expected, expected)))

    best = minimize(loss, np.zeros(4), tol=1e-10).x[0]
    assert of_all(logistic_slope(true, probability), PATIENTS) == pytest.approx(best, abs=1e-5)
    # A class that nobody has tells nothing.
    none = np.zeros((PATIENTS, 1), dtype=bool)
    more = logistic_slope(np.hstack([true, none]), np.hstack([probability, probability[:, :1]]))
    np.testing.assert_allclose(of_all(more, PATIENTS), best, atol=1e-5)


def test_two_classes_have_the_slope_of_one_of_them():
    true, probability = binary(1)
    both = logistic_slope(np.stack([~true, true], axis=1), np.stack([1 - probability, probability], axis=1))
    one = logistic_slope(true[:, None], probability[:, None])
    assert of_all(both, PATIENTS) == pytest.approx(of_all(one, PATIENTS))


def test_what_has_no_slope_is_unknown():
    true, probability = binary(0)
    separated = np.where(true, 0.9, 0.1) + np.linspace(0, 0.05, PATIENTS)
    assert np.isnan(of_all(logistic_slope(true[:, None], separated[:, None]), PATIENTS))
    assert np.isnan(of_all(logistic_slope(true[:, None], np.full((PATIENTS, 1), 0.3)), PATIENTS))
    for nobody in (np.zeros(PATIENTS, dtype=bool), np.ones(PATIENTS, dtype=bool)):
        assert np.isnan(of_all(logistic_slope(nobody[:, None], probability[:, None]), PATIENTS))
        assert np.isnan(of_all(logistic_intercept(nobody, probability), PATIENTS))
    assert np.isnan(of_all(linear_slope(probability, np.full(PATIENTS, 0.3)), PATIENTS))
    assert np.isnan(of_all(linear_intercept(probability, np.full(PATIENTS, 0.3)), PATIENTS))


@given(st.integers(0, 10_000))
def test_slope_and_intercept_of_a_number_are_those_of_scipy(seed):
    random = np.random.default_rng(seed)
    guess = 50 + 10 * random.standard_normal(PATIENTS)
    truth = 20 + 0.6 * guess + random.standard_normal(PATIENTS)
    expected = linregress(guess, truth)
    assert of_all(linear_slope(truth, guess), PATIENTS) == pytest.approx(expected.slope)
    assert of_all(linear_intercept(truth, guess), PATIENTS) == pytest.approx(expected.intercept)


@pytest.mark.parametrize("patients", [0, PATIENTS])
def test_nobody_has_no_score_and_the_others_keep_theirs(patients):
    true, probability = (values[:patients] for values in binary(0))
    scores = [
        logistic_slope(true[:, None], probability[:, None]),
        logistic_intercept(true, probability),
        linear_slope(true * 1.0, probability),
        linear_intercept(true * 1.0, probability),
    ]
    for score in scores:
        found = score(np.array([[0.0] * patients, [1.0] * patients]))
        assert np.isnan(found[0])
        assert np.isfinite(found[1]) == (patients > 0)
        if patients:
            assert found[1] == pytest.approx(of_all(score, patients))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_weight_is_that_many_patients(seed):
    true, probability = binary(seed)
    others = np.stack([probability, probability**2, 1 - probability], axis=1)
    member = np.random.default_rng(seed).integers(0, 3, PATIENTS)[:, None] == np.arange(3)
    weights = np.random.default_rng(0).multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=3).astype(float)

    def scores(rows):
        yield logistic_slope(true[rows, None], probability[rows, None])
        yield logistic_slope(member[rows], others[rows])
        yield logistic_intercept(true[rows], probability[rows])
        yield linear_slope(true[rows] * 1.0, probability[rows])
        yield linear_intercept(true[rows] * 1.0, probability[rows])

    for number, score in enumerate(scores(np.arange(PATIENTS))):
        for row, found in zip(weights.astype(int), score(weights), strict=True):
            rows = np.repeat(np.arange(PATIENTS), row)
            again = of_all(list(scores(rows))[number], PATIENTS)
            assert found == pytest.approx(again, rel=1e-5, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("seed", [8, 43, 79])
def test_a_search_does_not_go_to_and_fro(seed):
    """One patient of 30 has it, who has nearly the highest or the lowest probability: whole steps would never end."""
    odds = np.random.default_rng(seed).standard_normal(30)
    for place in (1, 28):
        true = np.argsort(np.argsort(odds)) == place
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=500)
        expected = model.fit(odds[:, None], true).coef_[0, 0]
        assert of_all(logistic_slope(true[:, None], expit(odds)[:, None]), 30) == pytest.approx(expected, rel=1e-4)
