"""Scores of classes and numbers against scikit-learn and scipy, and over weightings of the patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    roc_auc_score,
)

from foundation.metrics.class_scores import (
    accuracy,
    auprc,
    auroc,
    balanced_accuracy,
    calibration_error,
    macro_auprc,
    macro_auroc,
    macro_f1,
    net_benefit,
    quadratic_kappa,
)
from foundation.metrics.number_scores import absolute_error, pearson, spearman

PATIENTS = 50


def made(seed, levels=1000):
    """Truth of three classes, chances of each with ties, and the likeliest class."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, PATIENTS)
    chance = random.integers(1, levels + 1, (PATIENTS, 3)) + 0.3 * levels * np.eye(3)[truth]
    chance = chance / chance.sum(axis=1, keepdims=True)
    return truth, chance, chance.argmax(axis=1)


def of_all(score):
    return score(np.ones((1, PATIENTS)))[0]


@given(st.integers(0, 10_000), st.sampled_from([3, 1000]))
def test_scores_are_those_of_scikit_learn(seed, levels):
    truth, chance, guess = made(seed, levels)
    assert of_all(accuracy(truth, guess)) == pytest.approx(np.mean(truth == guess))
    assert of_all(balanced_accuracy(truth, guess)) == pytest.approx(balanced_accuracy_score(truth, guess))
    tied = np.round(chance, 1)
    assert of_all(auroc(truth == 1, tied[:, 1])) == pytest.approx(roc_auc_score(truth == 1, tied[:, 1]))
    assert of_all(macro_auroc(truth, tied)) == pytest.approx(roc_auc_score(np.eye(3)[truth], tied))
    assert of_all(macro_f1(truth, guess)) == pytest.approx(f1_score(truth, guess, average="macro"))
    assert of_all(auprc(truth == 1, tied[:, 1])) == pytest.approx(average_precision_score(truth == 1, tied[:, 1]))
    assert of_all(macro_auprc(truth, chance)) == pytest.approx(average_precision_score(np.eye(3)[truth], chance))
    expected = cohen_kappa_score(truth, guess, weights="quadratic")
    assert of_all(quadratic_kappa(truth, guess, 3)) == pytest.approx(expected)
    x, y = chance[:, 0], np.round(chance[:, 1], 1)
    assert of_all(pearson(x, y)) == pytest.approx(pearsonr(x, y)[0])
    assert of_all(spearman(x, y)) == pytest.approx(spearmanr(x, y)[0])
    assert of_all(absolute_error(x, y)) == pytest.approx(mean_absolute_error(x, y))


@given(st.integers(0, 10_000), st.sampled_from([3, 1000]))
def test_a_weight_is_that_many_patients(seed, levels):
    truth, chance, guess = made(seed, levels)
    weights = np.random.default_rng(seed).multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=3)

    def scores(rows):
        t, c, g = truth[rows], chance[rows], guess[rows]
        return [
            macro_f1(t, g), macro_auprc(t, c), auprc(t == 1, c[:, 1]), quadratic_kappa(t, g, 3),
            calibration_error(t == g, c.max(axis=1)), net_benefit(t == 1, c[:, 1], 0.3),
            pearson(c[:, 0], c[:, 1]), spearman(c[:, 0], np.round(c[:, 1], 1)), absolute_error(c[:, 0], c[:, 1]),
        ]  # fmt: skip

    for number, score in enumerate(scores(np.arange(PATIENTS))):
        for row, found in zip(weights, score(weights.astype(float)), strict=True):
            expected = scores(np.repeat(np.arange(PATIENTS), row))[number](np.ones((1, PATIENTS)))[0]
            assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_calibration_error_by_hand():
    """Two patients said 0.9 of whom one came true, two said 0.2 of whom none did."""
    right, stated = np.array([True, False, False, False]), np.array([0.9, 0.9, 0.2, 0.2])
    assert calibration_error(right, stated)(np.ones((1, 4)))[0] == pytest.approx((2 * 0.4 + 2 * 0.2) / 4)
    assert calibration_error(right, stated)(np.array([[1.0, 0, 0, 0]]))[0] == pytest.approx(0.1)


def test_net_benefit_by_hand():
    """At one in four a false positive costs a third of what a true one brings."""
    positive, chance = np.array([True, True, False, False]), np.array([0.9, 0.1, 0.25, 0.2])
    assert net_benefit(positive, chance, 0.25)(np.ones((1, 4)))[0] == pytest.approx((1 - 1 / 3) / 4)


def test_nothing_to_tell_is_nan():
    nothing = np.zeros((1, 3))
    codes, chance = np.array([0, 1, 1]), np.array([0.2, 0.3, 0.4])
    for score in (macro_f1(codes, codes), quadratic_kappa(codes, codes, 2), auprc(codes == 1, chance)):
        assert np.isnan(score(nothing)).all()
    assert np.isnan(auprc(codes == 2, chance)(np.ones((1, 3)))).all()
    assert np.isnan(pearson(np.ones(3), chance)(np.ones((1, 3)))).all()
