"""The features of a table: which of its rows or columns they are, each once or several made one by a stated rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from foundation.cohort.reading.feature_names import (
    dates_among,
    is_no_gene,
    is_unnamed,
    left_out_by,
    remark_on_dates,
    unversioned,
)
from foundation.errors import DataError

DuplicateRule = Literal["error", "mean", "first"]
UnnamedRule = Literal["leave_out", "error"]


class Features:
    """The features of a table whose names may repeat, be missing, or name none.

    Args:
        listed: Names in the order of the table, one per row or column; blanks around them are taken off.
        rule: What to do about a name that appears more than once.
        path: The table, for messages.
        remarks: Where to say what was left out and what was made one.
        leave_out: Patterns of names to leave out.
        unnamed: What to do about what has no name.

    Attributes:
        names: Each name once, in order of first appearance.
        kept: Positions in the list [K] of what is a feature.
        of_kept: Position in `names` of each of these.
        first: Position in `kept` of every name's first appearance.
        counts: How often each name is in the list.

    Raises:
        DataError: None is there; one has no name where `unnamed` is error; or one appears twice where `rule` is error,
            or under a name that is a date.
    """

    def __init__(
        self,
        listed: Sequence[str],
        rule: DuplicateRule,
        path: Path,
        remarks: Counter[str],
        *,
        leave_out: Sequence[str] = (),
        unnamed: UnnamedRule = "leave_out",
    ) -> None:
        self.rule = rule
        self._path = path
        self._remarks = remarks
        self._listed = len(listed)
        listed = [name.strip() for name in listed]
        self.kept = self._choose(listed, leave_out, unnamed)
        places: list[int] = self.kept.tolist()
        names: list[str] = [listed[place] for place in places]
        versions = several_versions(names)
        names = [versions.get(name, name) for name in names]
        position = {name: index for index, name in enumerate(dict.fromkeys(names))}
        self.names = list(position)
        self.of_kept = np.fromiter((position[name] for name in names), np.int64, len(names))
        self.first = np.unique(self.of_kept, return_index=True)[1]
        self.counts = np.bincount(self.of_kept, minlength=len(self.names))
        if not self.names:
            raise DataError("the table has no features", where=str(path), fix="check its orientation and its columns")
        self._look_at_dates()
        self._look_at_repeated(versions)

    def _choose(self, listed: Sequence[str], leave_out: Sequence[str], unnamed: UnnamedRule) -> np.ndarray:
        """Positions of what is a feature; what else there is gets a remark."""
        kept = ~left_out_by(leave_out, listed, self._remarks)
        nameless = np.fromiter(map(is_unnamed, listed), bool, len(listed)) & kept
        if nameless.any() and unnamed == "error":
            place = int(np.argmax(nameless))
            raise DataError(
                f"feature {place + 1} has no name (it reads '{listed[place]}')",
                where=str(self._path),
                fix="name it, remove it, or set `unnamed_features: leave_out`",
            )
        if nameless.any():
            self._remarks["features without a name, left out"] = int(nameless.sum())
        no_gene = np.fromiter(map(is_no_gene, listed), bool, len(listed)) & kept & ~nameless
        if no_gene.any():
            first = listed[int(np.argmax(no_gene))]
            self._remarks[f"rows that count reads of no gene, such as '{first}', left out"] = int(no_gene.sum())
        return np.flatnonzero(kept & ~nameless & ~no_gene)

    def _look_at_dates(self) -> None:
        dates = dates_among(self.names)
        counts = dict(zip(self.names, self.counts.tolist(), strict=True)) if dates else {}
        twice = [name for name in dates if counts[name] > 1]
        if twice:
            raise DataError(
                f"{len(twice)} features are named by a date and appear more than once, first '{twice[0]}': a "
                "spreadsheet has made dates of the names of genes, perhaps one of two genes (MARCH1 and MARC1)",
                where=str(self._path),
                fix="restore the names from a table that no spreadsheet has saved, or leave these out: "
                f"`leave_out_features: [{', '.join(repr(name) for name in twice[:3])}{', …' if twice[3:] else ''}]`",
            )
        remark_on_dates(dates, "kept under it", self._remarks)

    def _look_at_repeated(self, versions: dict[str, str]) -> None:
        repeated = int((self.counts > 1).sum())
        if not repeated:
            return
        if self.rule == "error":
            twice = self.names[int(np.argmax(self.counts > 1))]
            listed = [name for name, plain in versions.items() if plain == twice]
            raise DataError(
                f"{repeated} features appear more than once, first '{twice}'"
                + (f" (in the Ensembl versions {', '.join(listed)})" if listed else ""),
                where=str(self._path),
                fix="say what they mean together: `duplicate_features: mean` or `duplicate_features: first`",
            )
        self._remarks[f"features that appear more than once, of which the {self.rule} is used"] = repeated
        if versions:
            number = len(set(versions.values()))
            self._remarks["features in several Ensembl versions, made one under the id without a version"] = number

    @property
    def repeated(self) -> bool:
        """Whether a name appears more than once."""
        return len(self.names) < len(self.kept)

    @property
    def of_listed(self) -> np.ndarray:
        """Position in `names` of everything listed, -1 where it is no feature."""
        places = np.full(self._listed, -1)
        places[self.kept] = self.of_kept
        return places

    def merge(self, values: np.ndarray) -> np.ndarray:
        """Bring the kept columns [S, K] to one per name [S, F]; the mean is of what was measured."""
        if not self.repeated:
            return values
        if self.rule == "first":
            return values[:, self.first]
        total, number = Mean.empty((len(self.names), len(values)))
        Mean.add(total, number, self.of_kept, values.T)
        return Mean.of(total, number).T


def several_versions(names: Iterable[str]) -> dict[str, str]:
    """Names that differ by an Ensembl version alone, to what they have in common."""
    plain: dict[str, set[str]] = {}
    for name in names:
        plain.setdefault(unversioned(name), set()).add(name)
    return {name: common for common, found in plain.items() if len(found) > 1 for name in sorted(found)}


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
