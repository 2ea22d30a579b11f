"""Where the chosen samples of a table are in it, and the runs of neighbours among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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


class SampleRows:
    """Which row of the result a barcode of a long table belongs to.

    Args:
        samples: Barcodes in the order of the rows.
        same: Other names that stand in the table, to the sample they mean.
    """

    def __init__(self, samples: Sequence[str], same: Mapping[str, str]) -> None:
        import pandas as pd

        place = {name: row for row, name in enumerate(samples)}
        place |= {other: place[name] for other, name in same.items() if name in place}
        self._names = pd.Index(place.keys())
        self._rows = np.array([*place.values(), -1], dtype=np.int64)

    def of(self, barcodes: Any) -> np.ndarray:
        """The row of each barcode of a column; -1 where it is none of the samples."""
        return self._rows[self._names.get_indexer(barcodes)]


def runs(positions: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Split rising or falling positions into runs without a gap: where in `positions`, and where they lie."""
    borders = [0, *(np.flatnonzero(np.diff(positions) != 1) + 1), len(positions)]
    for start, end in itertools.pairwise(borders):
        if end > start:
            yield slice(int(start), int(end)), slice(int(positions[start]), int(positions[end - 1]) + 1)
