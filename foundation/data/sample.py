"""Some of many records, from few shards: what is learned of a sample need not read a whole cohort."""

from __future__ import annotations

import numpy as np

from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort

FEWEST_SHARDS = 32
"""A sample comes from at least so many shards, since neighbours in a cohort often have a site in common."""

GOLDEN = (5**0.5 - 1) / 2


def sample(cohort: PreparedCohort, rows: np.ndarray, most: int) -> np.ndarray:
    """At most about `most` of some records, those of shards that lie evenly over the cohort; all where they are fewer.

    Of several cohorts each gives as many, as far as it has them: a small one with pairs must not be lost among others.

    Samples of one cohort come from the same shards, a smaller one from some of those of a larger one.

    Args:
        cohort: The prepared cohort.
        rows: Sorted.
        most: How many are enough.

    Returns:
        Some of `rows`, sorted; a function of the arguments alone.
    """
    if len(rows) <= most:
        return rows
    if isinstance(cohort, UnitedCohort):
        return _of_each(cohort, rows, most)
    shards, shard_of, sizes = np.unique(cohort.shards_of(rows), return_inverse=True, return_counts=True)
    # Multiples of the golden ratio, modulo 1, below any bound are spread evenly over the integers.
    turn = np.argsort(shards * GOLDEN % 1, kind="stable")
    enough = np.searchsorted(np.cumsum(sizes[turn]), most) + 1
    chosen = turn[: max(enough, FEWEST_SHARDS)]
    inside = rows[np.isin(shard_of, chosen)]
    return inside[np.linspace(0, len(inside) - 1, min(len(inside), most)).round().astype(np.int64)]


def _of_each(cohort: UnitedCohort, rows: np.ndarray, most: int) -> np.ndarray:
    """A sample of each cohort; what a small one leaves goes to the larger ones."""
    of_cohort = cohort.of_cohort()[rows]
    names, sizes = np.unique(of_cohort, return_counts=True)
    chosen, left = [], most
    for turn, k in enumerate(np.argsort(sizes, kind="stable").tolist()):
        start = int(np.searchsorted(cohort.of_cohort(), names[k]))
        own = rows[of_cohort == names[k]] - start
        part = list(cohort.cohorts.values())[int(names[k])]
        taken = sample(part, own, left // (len(names) - turn))
        chosen.append(taken + start)
        left -= len(taken)
    return np.sort(np.concatenate(chosen))
