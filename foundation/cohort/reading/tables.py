"""Tables in delimited text or Parquet: their columns found, their rows read as text a bounded number at a time."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at run time.)

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from foundation.cohort.reading.cells import text_of
from foundation.cohort.reading.damage import reading, refuse_lost_rows
from foundation.cohort.reading.delimited import delimiter, is_parquet
from foundation.cohort.reading.header import COMMENT, read_header
from foundation.cohort.reading.lines import PIECE_BYTES, Lines
from foundation.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

Frame: TypeAlias = Any
"""A pandas DataFrame; a column of one is a Series, which the types of pandas do not say."""


ROWS = 200_000
"""Rows of a long Parquet table read at a time."""


def read_comments(path: Path) -> list[str]:
    """The comment lines above the header of a text table; Parquet has none."""
    if is_parquet(path):
        return []
    comments = []
    with reading(path), Lines(path) as stream:
        while (line := stream.readline()).startswith(COMMENT):
            comments.append(line.decode("utf-8").rstrip("\n").strip('"'))
    return comments


def column_names(path: Path, wanted: Sequence[str] = (), *, as_it_stands: bool = False) -> list[str]:
    """Names of the columns of a text or Parquet table; see `read_header`."""
    with reading(path):
        if is_parquet(path):
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with Lines(path) as stream:
            return read_header(stream, path, wanted, as_it_stands=as_it_stands)[0]


def find_column(name: str, columns: Sequence[str], path: Path) -> int:
    """The position of a column.

    Raises:
        DataError: There is none of this name, or there are two.
    """
    found = [position for position, column in enumerate(columns) if column == name]
    if not found:
        fix = "its line begins with #, as a comment does: take the # away" if _commented(name, path) else ""
        raise DataError(f"has no column '{name}'", where=str(path), fix=fix or nearest(name, columns))
    if len(found) > 1:
        raise DataError(f"column '{name}' appears {len(found)} times", where=str(path), fix="rename or remove one")
    return found[0]


def _commented(name: str, path: Path) -> bool:
    """Whether the last comment of a table looks like its header, since it names a column."""
    comments = read_comments(path) if path.is_file() else []
    return bool(comments) and name in re.split(r"[\t,]", comments[-1].lstrip("# "))


def read_frames(path: Path, columns: Sequence[str] | None = None, *, numbered: bool = False) -> Iterator[Frame]:
    """Read a long table as text, a bounded number of rows at a time.

    Blanks around cells are taken off, and lines that repeat the header, as joined files have them, left out.

    Args:
        path: The table.
        columns: Names of the wanted columns; all where None.
        numbered: The table has no header, and its columns are called 1, 2, 3 ...

    Yields:
        Frames of str whose index counts the rows of the table from 1; the first is 0 in a table without a header.

    Raises:
        DataError: A column is missing, a row has too few or too many cells, or the file is damaged.
    """
    names = column_names(path, columns or (), as_it_stands=numbered)
    first, names = names, [str(number) for number in range(1, len(names) + 1)] if numbered else names
    wanted = list(dict.fromkeys(names if columns is None else columns))
    places = {name: find_column(name, names, path) for name in wanted}
    import pandas as pd

    if numbered:
        yield pd.DataFrame({name: [first[place]] for name, place in places.items()}, dtype=str)
    start = 1
    with reading(path):
        for batch in _batches(path, places, as_it_stands=numbered):
            text = {name: text_of(batch.column(name), name, path).to_pylist() for name in wanted}
            frame = pd.DataFrame(text, index=range(start, start + batch.num_rows), dtype=str)
            start += batch.num_rows
            again = frame[wanted[0]] == wanted[0]
            yield frame if numbered or not again.any() else frame[~(frame == wanted).all(axis=1)]


def _batches(path: Path, places: dict[str, int], *, as_it_stands: bool) -> Iterator[pa.RecordBatch]:
    """Pieces of these columns, which lie at these places."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    wanted = list(places)
    if is_parquet(path):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS, columns=wanted)
        return
    tabs = delimiter(path) == "\t"
    rows = 0
    with Lines(path) as stream:
        header, above = read_header(stream, path, wanted, as_it_stands=as_it_stands)
        if not stream.peek(1):
            return
        names = [str(place) for place in range(len(header))]
        for name, place in places.items():
            names[place] = name
        parse = pa_csv.ParseOptions(delimiter=delimiter(path), quote_char=False if tabs else '"')
        for batch in pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=PIECE_BYTES, column_names=names),
            parse_options=parse,
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        ):
            rows += batch.num_rows
            yield _unquoted(batch) if tabs else batch
        refuse_lost_rows(rows, stream.count - above, path)


def _unquoted(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch without the quotes around whole cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def plain(cells: pa.Array) -> pa.Array:
        if not pc.any(pc.starts_with(cells, '"')).as_py():
            return cells
        whole = pc.match_substring_regex(cells, '^".*"$')
        inner = pc.replace_substring(pc.replace_substring_regex(cells, '^"(.*)"$', r"\1"), '""', '"')
        return pc.if_else(whole, inner, cells)

    return pa.RecordBatch.from_arrays([plain(cells) for cells in batch.columns], schema=batch.schema)
