"""Rectangles of numbers with named rows and columns, in text or Parquet, read in bounded pieces."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at run time.)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.cohort.reading.cells import parse_numbers, text_of
from foundation.cohort.reading.damage import places, ragged_row, reading, refuse_lost_rows
from foundation.cohort.reading.delimited import comma_rows, delimiter, is_parquet, open_cells
from foundation.cohort.reading.feature_names import is_unnamed
from foundation.cohort.reading.header import read_header
from foundation.cohort.reading.lines import PIECE_BYTES, Lines
from foundation.cohort.reading.tables import column_names, find_column
from foundation.cohort.sources.base import BLOCK_VALUES
from foundation.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


CELL_END = "\x1f"
"""Stands between cells in memory: a delimiter may be part of a quoted cell, this character is part of none."""


class Grid(ABC):
    """A file whose first row names columns and one of whose columns names rows.

    Args:
        path: The file.
        label: Name of the column that names the rows, or of several, of which the first with a name counts; the first
            (in Parquet, the index) where None.

    Attributes:
        columns: Names of all columns, without blanks around them.
        named_by: Positions of the columns that name the rows.
        lacks_name: Whether the header has no cell for the first column, as R writes it.
    """

    lacks_name = False

    def __init__(self, path: Path, label: str | Sequence[str] | None) -> None:
        self.path = path
        with reading(path):
            self.columns, default = self._open()
        labels = [label] if isinstance(label, str) else label or []
        self.named_by = [find_column(name, self.columns, path) for name in labels] or [default]

    @property
    def label(self) -> int:
        """Position of the first column that names the rows."""
        return self.named_by[0]

    @abstractmethod
    def _open(self) -> tuple[list[str], int]:
        """Names of the columns, and the position of the one that names rows unless told otherwise."""

    @cached_property
    def labels(self) -> list[str]:
        """Names of the rows, as they stand; reads the whole file once.

        Raises:
            DataError: The file is damaged, or a row has too few or too many cells.
        """
        names, *others = self._read_text(self.named_by)
        for other in others:
            names = [second if is_unnamed(first) else first for first, second in zip(names, other, strict=True)]
        return names

    @abstractmethod
    def _read_text(self, columns: Sequence[int]) -> list[list[str]]:
        """Whole columns, as they stand."""

    @abstractmethod
    def rows(self, wanted: np.ndarray, columns: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of some rows and columns.

        Args:
            wanted: Which rows, [rows of the file] bool; of the length of `labels`, which has checked their widths.
            columns: Which columns, by position, in the order they are wanted in.

        Yields:
            Positions of rows, and their numbers [rows, columns] float32, NaN where missing.

        Raises:
            DataError: A cell is not a number.
        """

    def not_a_number(self, row: str, column: int, value: object) -> DataError:
        """The error of one cell."""
        return DataError(
            f"row '{row}', column '{self.columns[column]}': '{value}' is not a finite number",
            where=str(self.path),
            fix="mend the cell, list a column of text in `leave_out_columns`, a feature of text in "
            "`leave_out_features`, or correct `orientation`",
        )


def open_grid(path: Path, label: str | Sequence[str] | None) -> Grid:
    """Open a text or Parquet file as a grid; see `Grid`."""
    return ParquetGrid(path, label) if is_parquet(path) else TextGrid(path, label)


class TextGrid(Grid):
    """A grid in delimited text."""

    def _open(self) -> tuple[list[str], int]:
        with Lines(self.path) as stream:
            columns, _ = read_header(stream, self.path)
        if len(columns) < 2:
            raise DataError(
                "the table has one column only", where=str(self.path), fix="check that its delimiter fits its suffix"
            )
        self.lacks_name = len(columns) > len(column_names(self.path, as_it_stands=True))
        return columns, 0

    def _read_text(self, columns: Sequence[int]) -> list[list[str]]:
        import pyarrow.compute as pc

        texts: list[list[str]] = [[] for _ in columns]
        for piece in self._pieces():
            lines = self._lines(piece)
            found = pc.count_substring(lines, CELL_END).to_numpy() + 1
            ragged = np.flatnonzero(found != len(self.columns))
            if len(ragged):
                row = len(texts[0]) + int(ragged[0]) + 1
                raise ragged_row(places(self.path, [row])[0], int(found[ragged[0]]), len(self.columns), self.path)
            heads = pc.split_pattern(lines, CELL_END, max_splits=max(columns) + 1)
            for text, column in zip(texts, columns, strict=True):
                text += pc.list_element(heads, column).to_pylist()
        return texts

    def rows(self, wanted: np.ndarray, columns: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of some rows and columns, a piece of the file at a time."""
        import pyarrow as pa
        import pyarrow.compute as pc

        start = 0
        for piece in self._pieces():
            lines = self._lines(piece)
            chosen = wanted[start : start + len(lines)]
            positions = start + np.flatnonzero(chosen)
            start += len(lines)
            if len(positions) == 0:
                continue
            cells = pc.split_pattern(lines.filter(pa.array(chosen)), CELL_END).flatten()
            yield positions, self._numbers(cells, len(positions), columns)

    def _pieces(self) -> Iterator[bytes]:
        """The file below its header, whole lines at a time."""
        with reading(self.path), Lines(self.path) as stream:
            read_header(stream, self.path)
            yield from _whole_lines(stream)

    def _lines(self, piece: bytes) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        with reading(self.path):
            text = piece.decode("utf-8").rstrip("\n")
        apart = delimiter(self.path)
        if apart == "\t":
            text = open_cells(text)
        text = self._unquoted(text) if apart == "," and '"' in text else text.replace(apart, CELL_END)
        return pc.split_pattern(pa.array([text]), "\n").flatten()

    def _unquoted(self, text: str) -> str:
        """Cells of comma-separated lines, which may be quoted; no cell may go on in the next line."""
        rows = comma_rows(text)
        refuse_lost_rows(len(rows), text.count("\n") + 1, self.path)
        return "\n".join(CELL_END.join(row) for row in rows)

    def _numbers(self, cells: pa.Array, rows: int, columns: np.ndarray) -> np.ndarray:
        width = len(self.columns)
        numbers, bad = parse_numbers(cells.take(_places(rows, width, columns)), np.float32)
        if bad.any():
            row, column = divmod(int(np.argmax(bad)), len(columns))
            value = cells[row * width + int(columns[column])].as_py()
            raise self.not_a_number(cells[row * width + self.label].as_py(), int(columns[column]), value)
        return numbers.reshape(rows, len(columns))


def _whole_lines(stream: Lines) -> Iterator[bytes]:
    rest = b""
    while piece := stream.read(PIECE_BYTES):
        lines, newline, after = piece.rpartition(b"\n")
        if newline:
            yield rest + lines
            rest = after
        else:
            rest += piece
    if rest:
        yield rest


def _places(rows: int, width: int, columns: np.ndarray) -> pa.Array:
    """Where these columns lie in an array of all cells, row by row."""
    import pyarrow as pa

    return pa.array((np.arange(rows)[:, None] * width + columns[None, :]).ravel())


class ParquetGrid(Grid):
    """A grid in Parquet; an index that pandas wrote names the rows unless told otherwise."""

    def _open(self) -> tuple[list[str], int]:
        import pyarrow.parquet as pq

        schema = pq.read_schema(self.path)
        names = list(schema.names)
        for name in names:
            find_column(name, names, self.path)
        index = [name for name in (schema.pandas_metadata or {}).get("index_columns", []) if name in names]
        return names, names.index(index[0]) if len(index) == 1 else 0

    def _read_text(self, columns: Sequence[int]) -> list[list[str]]:
        texts: list[list[str]] = [[] for _ in columns]
        for batch in self._batches([self.columns[place] for place in columns]):
            for text, column, cells in zip(texts, columns, batch.columns, strict=True):
                text += text_of(cells, self.columns[column], self.path).to_pylist()
        return texts

    def rows(self, wanted: np.ndarray, columns: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of some rows and columns, a piece of the file at a time."""
        import pyarrow as pa

        start = 0
        for batch in self._batches([self.columns[position] for position in columns]):
            chosen = wanted[start : start + batch.num_rows]
            positions = start + np.flatnonzero(chosen)
            start += batch.num_rows
            if len(positions):
                yield positions, self._numbers(batch.filter(pa.array(chosen)), positions, columns)

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with reading(self.path), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=max(1, BLOCK_VALUES // len(names)), columns=list(names)):
                yield batch.select(list(names))

    def _numbers(self, batch: pa.RecordBatch, positions: np.ndarray, columns: np.ndarray) -> np.ndarray:
        import pyarrow as pa

        arrays = [self._column(array, positions, columns[place]) for place, array in enumerate(batch.columns)]
        tensor = pa.RecordBatch.from_arrays(arrays, names=[str(place) for place in range(len(arrays))]).to_tensor(
            null_to_nan=True
        )
        values = tensor.to_numpy().astype(np.float32, copy=False)
        endless = np.argwhere(np.isinf(values))
        if len(endless):
            row, column = endless[0]
            raise self.not_a_number(self.labels[positions[row]], int(columns[column]), values[row, column])
        return values

    def _column(self, array: pa.Array, positions: np.ndarray, column: int) -> pa.Array:
        """A column as integers or floats, whatever it was stored as."""
        import pyarrow as pa

        if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
            return array.cast(pa.float32(), safe=False)
        if pa.types.is_boolean(array.type) or pa.types.is_decimal(array.type):
            return array.cast(pa.float32())
        numbers, bad = parse_numbers(text_of(array, self.columns[column], self.path), np.float32)
        if bad.any():
            row = int(np.argmax(bad))
            raise self.not_a_number(self.labels[positions[row]], int(column), array[row].as_py())
        return pa.array(numbers)
