"""Names of a table's features: each once, or several columns made one by a stated rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from foundation.cohort.reading.tables import MISSING
from foundation.errors import DataError

DuplicateRule = Literal["error", "mean", "first"]


class Features:
    """The features of a table whose names may repeat.

    Args:
        listed: Names in the order of the table, one per row or column.
        rule: What to do about a name that appears more than once.
        path: The table, for messages.

    Attributes:
        names: Each name once, in order of first appearance.
        of_listed: Position in `names` of every listed name.
        first: Position in the list of every name's first appearance.
        counts: How often each name is in the list.

    Raises:
        DataError: A feature has no name, none is there, or one appears twice where `rule` is error.
    """

    def __init__(self, listed: Sequence[str], rule: DuplicateRule, path: Path) -> None:
        position = {name: index for index, name in enumerate(dict.fromkeys(listed))}
        self.names = list(position)
        self.rule = rule
        self.of_listed = np.fromiter((position[name] for name in listed), np.int64, len(listed))
        self.first = np.unique(self.of_listed, return_index=True)[1]
        self.counts = np.bincount(self.of_listed, minlength=len(self.names))
        if not self.names:
            raise DataError("the table has no features", where=str(path), fix="check its orientation and its columns")
        nameless = next((name for name in MISSING if name in position), None)
        if nameless is not None:
            raise DataError(
                f"feature {listed.index(nameless) + 1} has no name (it reads '{nameless}')",
                where=str(path),
                fix="name it, or remove it",
            )
        if rule == "error" and len(self.names) < len(listed):
            twice = self.names[int(np.argmax(self.counts > 1))]
            raise DataError(
                f"{int((self.counts > 1).sum())} features appear more than once, first '{twice}'",
                where=str(path),
                fix="say what they mean together: `duplicate_features: mean` or `duplicate_features: first`",
            )

    @property
    def repeated(self) -> bool:
        """Whether a name appears more than once."""
        return len(self.names) < len(self.of_listed)

    def merge(self, values: np.ndarray) -> np.ndarray:
        """Bring columns [S, listed] to one per name [S, F]; the mean is of what was measured."""
        if not self.repeated:
            return values
        if self.rule == "first":
            return values[:, self.first]
        total, number = Mean.empty((len(self.names), len(values)))
        Mean.add(total, number, self.of_listed, values.T)
        return Mean.of(total, number).T


class Mean:
    """A mean over rows of one name, taken as the rows come, of what was measured."""

    @staticmethod
    def empty(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """A total and a number of values, both zero."""
        return np.zeros(shape), np.zeros(shape, dtype=np.int32)

    @staticmethod
    def add(total: np.ndarray, number: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
        """Add values [R, S] to the `rows` they belong to."""
        np.add.at(total, rows, np.nan_to_num(values, nan=0.0))
        np.add.at(number, rows, ~np.isnan(values))

    @staticmethod
    def of(total: np.ndarray, number: np.ndarray) -> np.ndarray:
        """The mean as float32, NaN where nothing was measured."""
        mean = np.full(total.shape, np.nan, dtype=np.float32)
        np.divide(total, number, out=mean, where=number > 0, casting="same_kind")
        return mean
