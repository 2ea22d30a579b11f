"""Scores of predicted classes: accuracy, F1, areas under curves, calibration error, kappa, net benefit."""

from __future__ import annotations

import numpy as np

from foundation.metrics.score import Score, average, mean, mean_of_shares, share

BINS = 10
"""Bins of equal width in which stated and observed probabilities are compared."""


def accuracy(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The share of right guesses."""
    return mean((truth_N == guess_N).astype(np.float64))


def balanced_accuracy(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The share of right guesses in each class of `truth_N`, averaged over its classes."""
    classes = np.unique(truth_N)
    member_NK = (truth_N[:, None] == classes).astype(np.float64)
    right_NK = member_NK * (guess_N == truth_N)[:, None]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        return mean_of_shares(weights_RN @ right_NK, weights_RN @ member_NK)

    return score


def macro_f1(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The harmonic mean of precision and recall of each class, averaged over the classes that are true or guessed."""
    classes = np.union1d(truth_N, guess_N)
    true_NK = (truth_N[:, None] == classes).astype(np.float64)
    guessed_NK = (guess_N[:, None] == classes).astype(np.float64)

    def score(weights_RN: np.ndarray) -> np.ndarray:
        return mean_of_shares(2 * weights_RN @ (true_NK * guessed_NK), weights_RN @ (true_NK + guessed_NK))

    return score


def auroc(positive_N: np.ndarray, score_N: np.ndarray) -> Score:
    """The share of pairs of one positive and one negative in which the positive scores higher; ties count a half."""
    above = score_N[positive_N][:, None] - score_N[~positive_N]
    won_PQ = (above > 0) + 0.5 * (above == 0)

    def score(weights_RN: np.ndarray) -> np.ndarray:
        of_positive, of_negative = weights_RN[:, positive_N], weights_RN[:, ~positive_N]
        won = np.sum((of_positive @ won_PQ) * of_negative, axis=1)
        return share(won, of_positive.sum(axis=1) * of_negative.sum(axis=1))

    return score


def macro_auroc(truth_N: np.ndarray, probability_NK: np.ndarray) -> Score:
    """The area under the ROC curve of each class against the others, averaged over the classes.

    Args:
        truth_N: [N] class as a column of `probability_NK`.
        probability_NK: [N, K] how likely each class is said to be.
    """
    return average([auroc(truth_N == k, probability_NK[:, k]) for k in range(probability_NK.shape[1])])


def auprc(positive_N: np.ndarray, score_N: np.ndarray) -> Score:
    """Average precision, the area under the steps of precision over recall."""
    order = np.argsort(-score_N, kind="stable")
    # Equal scores are one threshold: a curve has a point where the next score is lower.
    last = np.flatnonzero(np.append(np.diff(score_N[order]) != 0, True)[: len(order)])
    positive = positive_N[order].astype(np.float64)

    def score(weights_RN: np.ndarray) -> np.ndarray:
        sorted_RN = weights_RN[:, order]
        found = np.cumsum(sorted_RN * positive, axis=1)[:, last]
        called = np.cumsum(sorted_RN, axis=1)[:, last]
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        gained = np.diff(found, axis=1, prepend=0)
        return share(np.sum(gained * precision, axis=1), sorted_RN @ positive)

    return score


def macro_auprc(truth_N: np.ndarray, probability_NK: np.ndarray) -> Score:
    """The average precision of each class against the others, averaged over the classes that there are.

    Args:
        truth_N: [N] class as a column of `probability_NK`.
        probability_NK: [N, K] how likely each class is said to be.
    """
    return average([auprc(truth_N == k, probability_NK[:, k]) for k in range(probability_NK.shape[1])])


def calibration_error(right_N: np.ndarray, stated_N: np.ndarray) -> Score:
    """Expected calibration error: how far what is right lies from what was stated, averaged over BINS; lower is better.

    Guo et al. 2017, On calibration of modern neural networks.

    Args:
        right_N: [N] bool, whether it was so.
        stated_N: [N] how likely that was said to be.
    """
    in_bin_NB = (bins(stated_N)[:, None] == np.arange(BINS)).astype(np.float64)
    beyond_NB = in_bin_NB * (right_N - stated_N)[:, None]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        return share(np.abs(weights_RN @ beyond_NB).sum(axis=1), weights_RN.sum(axis=1))

    return score


def bins(stated_N: np.ndarray) -> np.ndarray:
    """The bin of each probability, from 0 to BINS - 1; a probability on an edge belongs below it."""
    return np.clip(np.ceil(stated_N * BINS).astype(np.int64) - 1, 0, BINS - 1)


def quadratic_kappa(truth_N: np.ndarray, guess_N: np.ndarray, classes: int) -> Score:
    """Cohen's kappa with quadratic weights: agreement of ordered classes beyond that of guesses made blindly.

    Args:
        truth_N: [N] 0 to `classes` - 1.
        guess_N: [N] likewise.
        classes: How many there are.
    """
    apart_KK = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2.0
    true_NK, guessed_NK = ((code_N[:, None] == np.arange(classes)).astype(np.float64) for code_N in (truth_N, guess_N))
    apart_N = (truth_N - guess_N) ** 2.0

    def score(weights_RN: np.ndarray) -> np.ndarray:
        blind = np.sum((weights_RN @ true_NK @ apart_KK) * (weights_RN @ guessed_NK), axis=1)
        return 1 - share(weights_RN @ apart_N * weights_RN.sum(axis=1), blind)

    return score


def net_benefit(positive_N: np.ndarray, probability_N: np.ndarray, threshold: float) -> Score:
    """True positives per patient of treating all at or above a threshold, less false ones at its odds.

    Vickers and Elkin 2006, Decision curve analysis: a novel method for evaluating prediction models.

    Args:
        positive_N: [N] bool.
        probability_N: [N] how likely positive is said to be.
        threshold: Above 0, below 1.
    """
    treated_N = probability_N >= threshold
    return mean(treated_N * np.where(positive_N, 1.0, -threshold / (1 - threshold)))
