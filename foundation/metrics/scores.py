"""Scores of predicted classes and numbers, each over many weightings of the patients at once, for a quick bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES = 500

Score = Callable[[np.ndarray], np.ndarray]
"""Weights [R, N] of N patients to R scores; NaN where a weighting leaves nothing to tell."""


def with_interval(score: Score, patients: int, random: np.random.Generator) -> tuple[float, list[float | None]]:
    """A score, and its 95 % interval by bootstrap over patients.

    Args:
        score: What to compute.
        patients: How many there are, N.
        random: Draws the resamples.

    Returns:
        The score of all patients, and the 2.5th and 97.5th percentile over RESAMPLES resamples of N patients each;
        None twice where hardly any resample has a score.
    """
    value = float(score(np.ones((1, patients)))[0])
    weights_RN = random.multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES).astype(np.float64)
    drawn = score(weights_RN)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < RESAMPLES // 2:
        return value, [None, None]
    return value, [float(bound) for bound in np.quantile(drawn, (0.025, 0.975))]


def balanced_accuracy(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The share of right guesses in each class of `truth_N`, averaged over its classes."""
    classes = np.unique(truth_N)
    member_NK = (truth_N[:, None] == classes).astype(np.float64)
    right_NK = member_NK * (guess_N == truth_N)[:, None]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        return mean_over_classes(weights_RN @ right_NK, weights_RN @ member_NK)

    return score


def macro_auroc(truth_N: np.ndarray, probability_NK: np.ndarray) -> Score:
    """The area under the ROC curve of each class against the others, averaged over the classes.

    Args:
        truth_N: [N] class as a column of `probability_NK`.
        probability_NK: [N, K] how likely each class is said to be.
    """
    areas = [auroc(truth_N == k, probability_NK[:, k]) for k in range(probability_NK.shape[1])]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        areas_RK = np.stack([area(weights_RN) for area in areas], axis=1)
        return mean_over_classes(np.nan_to_num(areas_RK), np.isfinite(areas_RK).astype(np.float64))

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


def r_squared(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The share of the variance that the guesses explain; negative where the mean would be the better guess."""
    error_N = (truth_N - guess_N) ** 2

    def score(weights_RN: np.ndarray) -> np.ndarray:
        total = weights_RN.sum(axis=1)
        mean = share(weights_RN @ truth_N, total)
        spread = share(weights_RN @ truth_N**2, total) - mean**2
        return 1 - share(share(weights_RN @ error_N, total), np.where(spread > 1e-12, spread, 0))

    return score


def pearson(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Pearson's correlation."""
    return lambda weights_RN: _correlation(weights_RN, truth_N[None], guess_N[None])


def spearman(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Spearman's correlation: that of ranks, where equal values share the mean of theirs."""
    return lambda weights_RN: _correlation(weights_RN, _ranks(weights_RN, truth_N), _ranks(weights_RN, guess_N))


def absolute_error(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Mean absolute error; lower is better."""
    return mean(np.abs(truth_N - guess_N))


def mean(value_N: np.ndarray) -> Score:
    """The mean of a value of each patient."""
    return lambda weights_RN: share(weights_RN @ value_N, weights_RN.sum(axis=1))


def _correlation(weights_RN: np.ndarray, x_RN: np.ndarray, y_RN: np.ndarray) -> np.ndarray:
    total_R1 = weights_RN.sum(axis=1, keepdims=True)
    share_RN = np.divide(weights_RN, total_R1, out=np.zeros_like(weights_RN), where=total_R1 > 0)
    x_RN = x_RN - np.sum(share_RN * x_RN, axis=1, keepdims=True)
    y_RN = y_RN - np.sum(share_RN * y_RN, axis=1, keepdims=True)
    spread = np.sum(share_RN * x_RN**2, axis=1) * np.sum(share_RN * y_RN**2, axis=1)
    return share(np.sum(share_RN * x_RN * y_RN, axis=1), np.sqrt(np.where(spread > 1e-24, spread, 0)))


def _ranks(weights_RN: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    """Rank [R, N] of each patient where each stands as often as it weighs, up to a constant."""
    _, level_N = np.unique(value_N, return_inverse=True)
    order = np.argsort(level_N, kind="stable")
    first = np.flatnonzero(np.diff(level_N[order], prepend=-1))
    at_level_RL = np.add.reduceat(weights_RN[:, order], first, axis=1)
    return (np.cumsum(at_level_RL, axis=1) - at_level_RL / 2)[:, level_N]


def mean_over_classes(right_RK: np.ndarray, of_RK: np.ndarray) -> np.ndarray:
    """Mean of right/of over the classes that a resample has."""
    shares_RK = np.divide(right_RK, of_RK, out=np.zeros_like(right_RK), where=of_RK > 0)
    return share(shares_RK.sum(axis=1), (of_RK > 0).sum(axis=1))


def share(part_R: np.ndarray, whole_R: np.ndarray) -> np.ndarray:
    """Part by whole, NaN where there is no whole."""
    return np.divide(part_R, whole_R, out=np.full(len(part_R), np.nan), where=whole_R > 0)
