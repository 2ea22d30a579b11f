"""What is measured of a channel's voxels: the bounds of the intensity rule, and mean and deviation between them."""

from __future__ import annotations

import numpy as np

from foundation.modality import Percentile, Window


def measure(
    values: np.ndarray, rule: Percentile | Window, foreground_above: float
) -> tuple[float, float, float, float]:
    """(low, high, mean, std) of one channel before it is padded.

    Args:
        values: [X, Y] or [X, Y, Z].
        rule: Where the bounds lie.
        foreground_above: What is above it counts; where nothing is, all does.
    """
    if values.dtype.kind != "f":
        return _measure_whole(values, rule, foreground_above)
    inside = values[values > foreground_above]
    inside = inside if inside.size else values.ravel()
    if isinstance(rule, Window):
        low, high = rule.low, rule.high
    else:
        low, high = (
            float(bound) for bound in np.percentile(inside.astype(np.float32, copy=False), [rule.low, rule.high])
        )
    clipped = np.clip(inside, low, high, dtype=np.float64)
    return low, high, float(clipped.mean()), float(clipped.std())


def _measure_whole(
    values: np.ndarray, rule: Percentile | Window, foreground_above: float
) -> tuple[float, float, float, float]:
    """As `measure`, of whole numbers: from their counts, which is many times faster than from themselves."""
    lowest = int(values.min())
    counts = np.bincount(values.ravel(order="K").astype(np.intp) - lowest)
    levels = np.arange(lowest, lowest + len(counts))
    inside = levels > foreground_above
    if counts[inside].any():
        levels, counts = levels[inside], counts[inside]
    if isinstance(rule, Window):
        low, high = rule.low, rule.high
    else:
        low, high = (_percentile_of_counts(levels, counts, percent) for percent in (rule.low, rule.high))
    clipped = np.clip(levels, low, high, dtype=np.float64)
    mean = float(np.average(clipped, weights=counts))
    return low, high, mean, float(np.sqrt(np.average((clipped - mean) ** 2, weights=counts)))


def _percentile_of_counts(levels: np.ndarray, counts: np.ndarray, percent: float) -> float:
    """The percentile of each level taken as often as counted, linear between neighbours in rank."""
    up_to = np.cumsum(counts)
    rank = percent / 100 * (up_to[-1] - 1)
    below, above = levels[np.searchsorted(up_to, [np.floor(rank), np.ceil(rank)], side="right")]
    return float(below + (above - below) * (rank - np.floor(rank)))
