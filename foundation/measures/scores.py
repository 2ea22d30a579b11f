"""Scores of predictions, each over many weightings of the patients at once, so that a bootstrap costs one product."""

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
        return _mean_over_classes(weights_RN @ right_NK, weights_RN @ member_NK)

    return score


def macro_auroc(truth_N: np.ndarray, chance_NK: np.ndarray) -> Score:
    """The area under the ROC curve of each class against the others, averaged over the classes.

    Args:
        truth_N: [N] class as a column of `chance_NK`.
        chance_NK: [N, K] how likely each class is said to be.
    """
    areas = [auroc(truth_N == k, chance_NK[:, k]) for k in range(chance_NK.shape[1])]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        areas_RK = np.stack([area(weights_RN) for area in areas], axis=1)
        return _mean_over_classes(np.nan_to_num(areas_RK), np.isfinite(areas_RK).astype(np.float64))

    return score


def auroc(positive_N: np.ndarray, score_N: np.ndarray) -> Score:
    """The share of pairs of one positive and one negative in which the positive scores higher; ties count a half."""
    above = score_N[positive_N][:, None] - score_N[~positive_N]
    won_PQ = (above > 0) + 0.5 * (above == 0)

    def score(weights_RN: np.ndarray) -> np.ndarray:
        of_positive, of_negative = weights_RN[:, positive_N], weights_RN[:, ~positive_N]
        won = np.sum((of_positive @ won_PQ) * of_negative, axis=1)
        return _share(won, of_positive.sum(axis=1) * of_negative.sum(axis=1))

    return score


def concordance(risk_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray) -> Score:
    """Harrell's C within groups: of the pairs whose order is known, the share in which the higher risk ends first.

    Pairs of different groups are never compared, so that the score of several groups is the mean of theirs, weighted
    by their known pairs. A pair is known when the earlier time is an event; of two equal times, only an event before
    a censoring is. Equal risks count one half.

    Args:
        risk_N: [N], higher is worse.
        time_N: [N], to the event or to censoring.
        event_N: [N], 1 happened, 0 censored.
        groups_N: [N] names.
    """
    blocks = []
    for group in np.unique(groups_N):
        here = np.flatnonzero(groups_N == group)
        died = here[event_N[here] == 1]
        later = time_N[died, None] < time_N[here]
        known_DN = (later | ((time_N[died, None] == time_N[here]) & (event_N[here] == 0))).astype(np.float64)
        above = risk_N[died, None] - risk_N[here]
        blocks.append((died, here, known_DN, known_DN * ((above > 0) + 0.5 * (above == 0))))

    def score(weights_RN: np.ndarray) -> np.ndarray:
        won, known = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
        for died, here, known_DN, won_DN in blocks:
            first, second = weights_RN[:, died], weights_RN[:, here]
            won += np.sum((first @ won_DN) * second, axis=1)
            known += np.sum((first @ known_DN) * second, axis=1)
        return _share(won, known)

    return score


def r_squared(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The share of the variance that the guesses explain; negative where the mean would be the better guess."""
    error_N = (truth_N - guess_N) ** 2

    def score(weights_RN: np.ndarray) -> np.ndarray:
        total = weights_RN.sum(axis=1)
        mean = weights_RN @ truth_N / total
        spread = weights_RN @ truth_N**2 / total - mean**2
        return 1 - _share(weights_RN @ error_N / total, np.where(spread > 1e-12, spread, 0))

    return score


def _mean_over_classes(right_RK: np.ndarray, of_RK: np.ndarray) -> np.ndarray:
    """Mean of right/of over the classes that a resample has."""
    shares_RK = np.divide(right_RK, of_RK, out=np.zeros_like(right_RK), where=of_RK > 0)
    return _share(shares_RK.sum(axis=1), (of_RK > 0).sum(axis=1))


def _share(part_R: np.ndarray, whole_R: np.ndarray) -> np.ndarray:
    return np.divide(part_R, whole_R, out=np.full(len(part_R), np.nan), where=whole_R > 0)
