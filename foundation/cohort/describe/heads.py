"""The first lines of a delimited table, whatever its size: comments, names of the columns, some rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foundation.cohort.reading.cells import MISSING
from foundation.cohort.reading.damage import reading
from foundation.cohort.reading.delimited import delimiter, is_parquet
from foundation.cohort.reading.header import read_header
from foundation.cohort.reading.lines import Lines

ROWS = 40
"""Rows that are looked at."""


@dataclass
class Head:
    """How a table begins.

    Attributes:
        path: The table.
        names: Of its columns.
        rows: The first rows, of as many cells as there are columns; shorter and longer ones are as they stand.
        comments: Lines before the header, without their ``#``.
    """

    path: Path
    names: list[str]
    rows: list[list[str]]
    comments: list[str]

    @property
    def title(self) -> bool:
        """Whether the first line is a title, as spreadsheets are given one, and names no columns."""
        return len(self.names) > 2 and sum(bool(name.strip()) for name in self.names) == 1

    def column(self, name: str) -> list[str]:
        """The cells of a column that are not missing."""
        place = self.names.index(name)
        cells = (row[place].strip() for row in self.rows if place < len(row))
        return [cell for cell in cells if cell not in MISSING]

    @cached_property
    def text_columns(self) -> list[str]:
        """Columns with a cell that is neither missing nor a number."""
        return [name for name in self.names if not all(map(is_number, self.column(name)))]

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """Every number in these columns, in one row."""
        return np.array([float(cell) for name in columns for cell in self.column(name)])


def is_number(cell: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def read_head(path: Path) -> Head:
    """Read how a text or Parquet table begins.

    Raises:
        DataError: It is empty, damaged, not UTF-8, or its suffix is not one of tables.
    """
    with reading(path):
        if is_parquet(path):
            import pyarrow.parquet as pq

            file = pq.ParquetFile(path)
            batch = next(file.iter_batches(batch_size=ROWS), None)
            cells = [] if batch is None else [["" if c is None else str(c) for c in col.to_pylist()] for col in batch]
            return Head(path, list(file.schema_arrow.names), [list(row) for row in zip(*cells, strict=True)], [])
        with Lines(path) as stream:
            comments = []
            while stream.peek(1)[:1] == b"#":
                comments.append(stream.readline().decode("utf-8").strip().lstrip("#").strip())
            names, _ = read_header(stream, path)
            text = [stream.readline().decode("utf-8").rstrip("\n") for _ in range(ROWS)]
    lines = [line for line in text if line]
    apart = delimiter(path)
    rows = [_plain(line.split("\t")) for line in lines] if apart == "\t" else list(csv.reader(lines, delimiter=apart))
    return Head(path, names, rows, comments)


def _plain(cells: list[str]) -> list[str]:
    return [cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells]
