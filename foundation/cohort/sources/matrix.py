"""Numbers in a table of features by samples or samples by features: TSV, CSV or Parquet, gzipped or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from foundation.cohort.reading.cells import parse_numbers
from foundation.cohort.reading.features import DuplicateRule, Features, Mean, UnnamedRule
from foundation.cohort.reading.grids import Grid, open_grid
from foundation.cohort.reading.positions import positions_of, runs
from foundation.cohort.reading.tables import find_column
from foundation.cohort.sources.base import BLOCK_VALUES, Block, Table, TableConfig, TableSource, table_sources
from foundation.errors import DataError


class MatrixConfig(TableConfig):
    """How a matrix is laid out."""

    format: Literal["matrix"]
    orientation: Literal["features_by_samples", "samples_by_features"] = Field(
        description="Whether a row is a feature (features_by_samples) or a sample."
    )
    feature_column: str | list[str] | None = Field(
        None,
        description="Column that names the features of a features_by_samples table, or several, such as [Hugo_Symbol, "
        "Entrez_Gene_Id], of which the first with a name counts; the first of the table by default.",
    )
    sample_column: str | None = Field(
        None, description="Column that names the samples of a samples_by_features table; the first by default."
    )
    leave_out_columns: list[str] = Field([], description="Columns that are neither samples nor features.")
    duplicate_features: DuplicateRule = Field(
        "error", description="What a feature that stands several times means: an error, the mean, or the first."
    )
    unnamed_features: UnnamedRule = Field(
        "leave_out", description="What a feature without a name means: it is left out, and counted, or an error."
    )
    numeric_names: bool = Field(
        False, description="The names in the header are numbers, such as Entrez ids, and no values."
    )

    @model_validator(mode="after")
    def _the_column_fits_the_orientation(self) -> MatrixConfig:
        if self.orientation == "features_by_samples" and self.sample_column is not None:
            raise ValueError("sample_column: in a features_by_samples table set feature_column, samples are columns")
        if self.orientation == "samples_by_features" and self.feature_column is not None:
            raise ValueError("feature_column: in a samples_by_features table set sample_column, features are columns")
        return self


@table_sources.register("matrix")
class MatrixSource(TableSource):
    """A matrix, read a bounded number of rows at a time."""

    Config = MatrixConfig
    config: MatrixConfig

    def list_samples(self) -> list[str]:
        """Barcodes in the order of the table."""
        grid = self._grid
        if self.config.orientation == "features_by_samples":
            return [grid.columns[position] for position in self._values(grid)]
        labels = [label for label in grid.labels if label.strip()]
        if len(labels) < len(grid.labels):
            self.remarks["rows without the name of a sample, left out"] = len(grid.labels) - len(labels)
        return labels

    def read(self, samples: Sequence[str]) -> Table:
        """Open the table for these samples."""
        grid = self._grid
        if self.config.orientation == "features_by_samples":
            features = self._features(grid.labels)
            places = self._values(grid)
            found = positions_of(samples, [grid.columns[place] for place in places], self.path)
            return Table(features.names, _by_feature(grid, features, places[found]))
        places = self._values(grid)
        features = self._features([grid.columns[place] for place in places])
        rows = positions_of(samples, grid.labels, self.path)
        return Table(features.names, _by_sample(grid, features, places[features.kept], rows))

    def _features(self, listed: list[str]) -> Features:
        config = self.config
        return Features(
            listed,
            config.duplicate_features,
            self.path,
            self.remarks,
            leave_out=config.leave_out_features,
            unnamed=config.unnamed_features,
        )

    @cached_property
    def _grid(self) -> Grid:
        grid = open_grid(self.path, self.config.feature_column or self.config.sample_column)
        if grid.lacks_name:
            self.remarks["tables whose header has no cell for the first column, as R writes them"] = 1
        names = [grid.columns[position] for position in self._values(grid)]
        if not names:
            raise DataError("the table has no column of values", where=str(self.path), fix="check leave_out_columns")
        if not self.config.numeric_names and _are_numbers(names):
            raise DataError(
                f"the table seems to have no header: its first line is '{grid.columns[grid.label]}', "
                f"'{names[0]}', … with nothing but numbers",
                where=str(self.path),
                fix="add a line with the names of the columns; if these are names, set `numeric_names: true`",
            )
        return grid

    def _values(self, grid: Grid) -> np.ndarray:
        """Positions of the columns that hold values."""
        without = {find_column(name, grid.columns, self.path) for name in self.config.leave_out_columns}
        without.update(grid.named_by)
        values = [place for place in range(len(grid.columns)) if place not in without]
        if self.config.orientation == "features_by_samples":
            named = [place for place in values if grid.columns[place].strip()]
            if len(named) < len(values):
                self.remarks["columns without the name of a sample, left out"] = len(values) - len(named)
            values = named
        return np.array(values, dtype=np.int64)


def _are_numbers(names: list[str]) -> bool:
    import pyarrow as pa

    numbers, bad = parse_numbers(pa.array(names))
    return not bad.any() and not np.isnan(numbers).all()


def _by_feature(grid: Grid, features: Features, columns: np.ndarray) -> Iterator[Block]:
    """Rows are features: each piece of the file is some features of all samples."""
    everyone = slice(0, len(columns))
    of_listed = features.of_listed
    single = np.zeros(len(of_listed), dtype=bool)
    single[features.kept[features.first]] = True if features.rule == "first" else features.counts == 1
    for rows, values in grid.rows(single, columns):
        for piece, target in runs(of_listed[rows]):
            yield Block(everyone, target, values[piece].T)
    if features.rule == "mean":
        yield from _means(grid, features, columns)


def _means(grid: Grid, features: Features, columns: np.ndarray) -> Iterator[Block]:
    """Features that are in several rows, as many at a time as fit: the file is read once for each such group."""
    repeated = np.flatnonzero(features.counts > 1)
    step = max(1, BLOCK_VALUES // len(columns)) if len(columns) else 1
    of_listed = features.of_listed
    for start in range(0, len(repeated), step):
        group = repeated[start : start + step]
        place = np.full(len(features.names) + 1, -1)  # The last is that of what is no feature, -1.
        place[group] = np.arange(len(group))
        total, number = Mean.empty((len(group), len(columns)))
        for rows, values in grid.rows(place[of_listed] >= 0, columns):
            Mean.add(total, number, place[of_listed[rows]], values)
        mean = Mean.of(total, number)
        for piece, target in runs(group):
            yield Block(slice(0, len(columns)), target, mean[piece].T)


def _by_sample(grid: Grid, features: Features, columns: np.ndarray, samples: np.ndarray) -> Iterator[Block]:
    """Rows are samples: each piece of the file is all features of some samples."""
    target_of_row = np.full(len(grid.labels), -1)
    target_of_row[samples] = np.arange(len(samples))
    for rows, values in grid.rows(target_of_row >= 0, columns):
        merged = features.merge(values)
        for piece, target in runs(target_of_row[rows]):
            yield Block(target, slice(0, len(features.names)), merged[piece])
