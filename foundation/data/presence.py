"""In which records of a cohort something was observed among the features that somebody reads."""

from __future__ import annotations

import numpy as np

from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort

FIRST_FEATURES = 32
WIDER = 16
BLOCK_VALUES = 8_000_000


def observed_N(cohort: PreparedCohort, name: str, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Whether at least one of some features was observed.

    Most records show it in the first few features; of the others more and more is read, so that a million records
    cost about a page of the file each.

    Args:
        cohort: The prepared cohort.
        name: Of an omics modality that it holds.
        rows: [N] records.
        features: Positions of the features among the cohort's, in any order.

    Returns:
        Bool [N]. An infinite value counts: who holds one is damaged, not absent.
    """
    observed = np.zeros(len(rows), dtype=bool)
    if isinstance(cohort, UnitedCohort):
        # The first features of all may lie anywhere in one of them.
        for part in cohort.parts_with(name, rows):
            places = part.places[features]
            observed[part.here] = observed_N(part.cohort, name, part.rows, places[places >= 0])
        return observed
    wanted_F = np.zeros(len(cohort.features[name]), dtype=bool)
    wanted_F[features] = True
    places = np.flatnonzero(wanted_F)
    start, stop = (places[0], places[-1] + 1) if len(places) else (0, 0)
    unsure = np.flatnonzero(cohort.present_NM[rows, cohort.modalities.index(name)])
    width = FIRST_FEATURES
    while len(unsure) and start < stop:
        window = slice(start, min(start + width, stop))
        found = _observed_in(cohort, name, rows[unsure], window, wanted_F[window])
        observed[unsure[found]] = True
        unsure = unsure[~found]
        start, width = window.stop, width * WIDER
    return observed


def _observed_in(
    cohort: PreparedCohort, name: str, rows: np.ndarray, window: slice, wanted_F: np.ndarray
) -> np.ndarray:
    """Bool [N], in blocks that bound memory."""
    size = max(1, BLOCK_VALUES // len(wanted_F))
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    return np.concatenate(
        [(~np.isnan(cohort.values_NF(name, block, window)) & wanted_F).any(axis=1) for block in blocks]
    )
