"""Scores over several folds, and the difference between two methods on the same patients, by bootstrap.

A resample draws patients, and every fold is scored on those of its test patients that were drawn. So a patient whom
several repeats of a split predict is drawn into all of them or none, and both sides of a comparison see the same draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.metrics.score import Score

RESAMPLES = 2000


def averaged(parts: Sequence[tuple[np.ndarray, Score]]) -> Score:
    """The mean of the scores of several parts, such as folds, or cancers that are themselves means over folds.

    Args:
        parts: Positions of a part's patients among all N (bool [N] or int [n]), and its score.

    Returns:
        A score of all N patients; a part that a weighting leaves nothing to tell is left out of its mean.
    """

    def score(weights_RN: np.ndarray) -> np.ndarray:
        of_part_RK = np.stack([part(weights_RN[:, positions]) for positions, part in parts], axis=1)
        told_RK = np.isfinite(of_part_RK)
        told_R = told_RK.sum(axis=1)
        total_R = np.where(told_RK, of_part_RK, 0).sum(axis=1)
        return np.divide(total_R, told_R, out=np.full(len(told_R), np.nan), where=told_R > 0)

    return score


@dataclass(frozen=True)
class Comparison:
    """One prediction against another.

    Attributes:
        difference: Score of the first less that of the second.
        ci95: Of the difference, by bootstrap over patients; None twice where hardly any resample has both scores.
        p_value: Two-sided: how often resamples contradict the sign of the difference, twice; None with the interval.
    """

    difference: float
    ci95: tuple[float, float] | tuple[None, None]
    p_value: float | None


def compare(
    first: Score, second: Score, patients: int, random: np.random.Generator, resamples: int = RESAMPLES
) -> Comparison:
    """Compare two predictions of the same patients.

    Args:
        first: Score of the one, over N patients.
        second: Score of the other, over the same patients in the same order.
        patients: N.
        random: Draws the resamples.
        resamples: How many.
    """
    everyone = np.ones((1, patients))
    difference = float((first(everyone) - second(everyone))[0])
    weights_RN = random.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(np.float64)
    drawn = first(weights_RN) - second(weights_RN)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < resamples // 2:
        return Comparison(difference, (None, None), None)
    low, high = np.quantile(drawn, (0.025, 0.975))
    # One is added to both sides: a finite number of resamples cannot show a probability of zero.
    contradicting = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Comparison(difference, (float(low), float(high)), min(1.0, 2 * contradicting / (len(drawn) + 1)))
