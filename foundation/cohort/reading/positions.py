"""Where the chosen samples of a table are in it, and the runs of neighbours among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from foundation.errors import DataError, nearest


def positions_of(samples: Sequence[str], listed: Sequence[str], path: Path) -> np.ndarray:
    """Where the samples are in the table.

    Raises:
        DataError: One of them does not.
    """
    position = {name: index for index, name in enumerate(listed)}
    for sample in samples:
        if sample not in position:
            raise DataError(f"has no sample '{sample}'", where=str(path), fix=nearest(sample, listed))
    return np.array([position[sample] for sample in samples], dtype=np.int64)


def runs(positions: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Split rising or falling positions into runs without a gap: where in `positions`, and where they lie."""
    borders = [0, *(np.flatnonzero(np.diff(positions) != 1) + 1), len(positions)]
    for start, end in itertools.pairwise(borders):
        if end > start:
            yield slice(int(start), int(end)), slice(int(positions[start]), int(positions[end - 1]) + 1)
