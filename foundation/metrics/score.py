"""What a score is: a function of weights of patients, over many weightings at once; its interval by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def mean(value_N: np.ndarray) -> Score:
    """The mean of a value of each patient."""
    return lambda weights_RN: share(weights_RN @ value_N, weights_RN.sum(axis=1))


def share(part_R: np.ndarray, whole_R: np.ndarray) -> np.ndarray:
    """Part by whole, NaN where there is no whole."""
    return np.divide(part_R, whole_R, out=np.full(len(part_R), np.nan), where=whole_R > 0)


def mean_of_shares(part_RK: np.ndarray, whole_RK: np.ndarray) -> np.ndarray:
    """Mean [R] of part by whole, over those K of which a resample has any."""
    shares_RK = np.divide(part_RK, whole_RK, out=np.zeros_like(part_RK), where=whole_RK > 0)
    return share(shares_RK.sum(axis=1), (whole_RK > 0).sum(axis=1))


def average(scores: Sequence[Score]) -> Score:
    """The mean of those scores that there are in a resample."""

    def score(weights_RN: np.ndarray) -> np.ndarray:
        each_RK = np.stack([one(weights_RN) for one in scores], axis=1)
        return mean_of_shares(np.nan_to_num(each_RK), np.isfinite(each_RK).astype(np.float64))

    return score


def of_rows(score: Score, rows: np.ndarray) -> Score:
    """A score of some patients, over weights of all: `rows` is a mask or positions."""
    return lambda weights_RN: score(weights_RN[:, rows])
