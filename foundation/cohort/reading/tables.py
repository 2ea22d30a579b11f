"""Tables in delimited text or Parquet: opened, their columns found, their cells read as text or as numbers."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at run time.)

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from foundation.cohort.reading.lines import PIECE_BYTES, Lines
from foundation.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = (
    "",
    "NA",
    "na",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "NAN",
    "None",
    "null",
    "NULL",
    "--",
    "'--",
    "Not Available",
    "Not Reported",
    "not reported",
    "[Not Available]",
    "[Not Applicable]",
    "[Not Evaluated]",
    "[Not Reported]",
    "[Unknown]",
    "[Discrepancy]",
)
"""Cells that say that nothing was measured."""

DELIMITERS = {".tsv": "\t", ".txt": "\t", ".tab": "\t", ".maf": "\t", ".seg": "\t", ".csv": ","}

Frame: TypeAlias = Any
"""A pandas DataFrame; a column of one is a Series, which the types of pandas do not say."""

Column: TypeAlias = Any
"""A pandas Series."""

POINTER = "version https://git-lfs.github.com/spec/"
"""How a file begins that stands for one which Git LFS has not yet fetched."""

ROWS = 200_000
"""Rows of a long Parquet table read at a time."""

QUOTED = re.compile(r'(^|[\t\n])"([^\t\n]*)"(?=[\t\n]|$)')
"""A cell between tabs that stands in quotes as a whole, as R writes them."""


def is_parquet(path: Path) -> bool:
    """Whether the suffix says Parquet."""
    return path.suffix == ".parquet"


def delimiter(path: Path) -> str:
    """The character between the cells of a text table, by its suffix, or a tab where it begins as text with tabs.

    Raises:
        DataError: The suffix is none of those known.
    """
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in DELIMITERS and _begins_with_tabs(path):
        return "\t"
    if suffix not in DELIMITERS:
        raise DataError(
            f"a table cannot be read from the suffix '{suffix}'",
            where=str(path),
            fix=f"use one of {', '.join(DELIMITERS)} (each also with .gz), or .parquet",
        )
    return DELIMITERS[suffix]


def _begins_with_tabs(path: Path) -> bool:
    """Whether a file begins as text with tabs does, such as one of Xena's, whose names have no telling end."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(100_000).decode("utf-8", errors="strict" if path.stat().st_size < 100_000 else "ignore")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        return False
    return "\t" in start and "\0" not in start


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a reader raises at a damaged file into a DataError that names the file."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("no such file", where=str(path), fix=nearest(path.name, siblings)) from None
    except EOFError:
        raise DataError(
            "the compressed file ends too early: it is truncated", where=str(path), fix="copy it again from its source"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"is not a sound gzip file: {error}", where=str(path), fix="copy it again, or correct its suffix"
        ) from None
    except UnicodeDecodeError:
        raise DataError(
            "is not text in UTF-8", where=str(path), fix="save it as UTF-8, or correct its suffix"
        ) from None
    except pa.ArrowInvalid as error:
        raise _misread(str(error), path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=str(path), fix="check the file and its permissions") from None


def _misread(message: str, path: Path) -> DataError:
    """Arrow's message without the row itself, which may hold what must not be shown."""
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if ragged:
        row, expected, found = ragged.groups()
        return ragged_row(places(path, [int(row)])[0], int(found), int(expected), path)
    if "invalid UTF8" in message:
        return DataError("is not text in UTF-8", where=str(path), fix="save it as UTF-8")
    return DataError(f"cannot be read: {message.splitlines()[0]}", where=str(path), fix="copy it again from its source")


def places(path: Path, rows: Sequence[int]) -> list[str]:
    """Where rows of a table are found, counted from 1: ``line 3`` as an editor counts, or ``row 2`` of Parquet.

    It reads the file once more, for a message.
    """
    if is_parquet(path):
        return [f"row {row}" for row in rows]
    opened = gzip.open if path.suffix == ".gz" else open
    line_of_row: dict[int, int] = {}
    wanted, header, row = set(rows), False, 0
    with opened(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        for number, text in enumerate(file, start=1):
            if text == "\n" or (not header and text.startswith("#")):
                continue
            if header and (row := row + 1) in wanted:
                line_of_row[row] = number
            header = True
    return [f"line {line_of_row[row]}" if row in line_of_row else f"row {row}" for row in rows]


def ragged_row(row: str, found: int, expected: int, path: Path) -> DataError:
    """The error of a row that has more or fewer cells than the header."""
    return DataError(
        f"{row} has {found} cells, the header has {expected}",
        where=str(path),
        fix="mend that row: close an open quote; quote a cell that holds the delimiter; give the first column a name",
    )


def open_cells(text: str) -> str:
    """Lines of a tab-separated table without the quotes around whole cells; any other quote is a character."""
    if '"' not in text:
        return text
    return QUOTED.sub(lambda cell: cell[1] + cell[2].replace('""', '"'), text)


def refuse_lost_rows(rows: int, lines: int, path: Path) -> None:
    """Refuse a table of which fewer rows were read than it has lines: an open quote has swallowed some.

    Raises:
        DataError: Their numbers differ.
    """
    if rows != lines:
        raise DataError(
            f"{lines} lines below the header are read as {rows} rows: a quote is never closed, or a cell holds a line "
            "break",
            where=str(path),
            fix="close the quote, take line breaks out of cells, or save the table with tabs as .tsv, where quotes are "
            "characters like any other",
        )


def read_header(stream: Lines, path: Path) -> tuple[list[str], int]:
    """Read up to and with the first line that is no comment.

    Returns:
        The names of the columns, and the number of comment lines before them.

    Raises:
        DataError: There is no such line.
    """
    comments = 0
    while (line := stream.readline()).startswith(b"#"):
        comments += 1
    text = line.decode("utf-8").rstrip("\n")
    if not text.strip():
        raise DataError("the table is empty", where=str(path), fix="name a table with a header and rows")
    apart = delimiter(path)
    if text.startswith(POINTER):
        raise DataError(
            "is a pointer of Git LFS, not the file itself",
            where=str(path),
            fix="run `git lfs pull` where it was cloned",
        )
    names = open_cells(text).split("\t") if apart == "\t" else next(csv.reader([text], delimiter=apart))
    for other, called in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if len(names) == 1 and other in text:
            raise DataError(
                f"seems to separate its cells by {called}",
                where=str(path),
                fix="save it with commas and decimal points as .csv, or with tabs as .tsv",
            )
    return names, comments


def read_comments(path: Path) -> list[str]:
    """The comment lines above the header of a text table; Parquet has none."""
    if is_parquet(path):
        return []
    comments = []
    with reading(path), Lines(path) as stream:
        while (line := stream.readline()).startswith(b"#"):
            comments.append(line.decode("utf-8").rstrip("\n"))
    return comments


def column_names(path: Path) -> list[str]:
    """Names of the columns of a text or Parquet table, as they stand."""
    with reading(path):
        if is_parquet(path):
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with Lines(path) as stream:
            return read_header(stream, path)[0]


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


def read_frames(path: Path, columns: Sequence[str] | None = None) -> Iterator[Frame]:
    """Read a long table as text, a bounded number of rows at a time.

    Args:
        path: The table.
        columns: Names of the wanted columns; all where None.

    Yields:
        Frames of str whose index counts the rows of the table from 1.

    Raises:
        DataError: A column is missing, a row has too few or too many cells, or the file is damaged.
    """
    names = column_names(path)
    wanted = list(dict.fromkeys(names if columns is None else columns))
    for name in wanted:
        find_column(name, names, path)
    import pandas as pd
    import pyarrow as pa

    start = 1
    with reading(path):
        for batch in _batches(path, wanted):
            text = {name: batch.column(name).cast(pa.string()).fill_null("").to_pylist() for name in wanted}
            yield pd.DataFrame(text, index=range(start, start + batch.num_rows), dtype=str)
            start += batch.num_rows


def _batches(path: Path, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    if is_parquet(path):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS, columns=wanted)
        return
    tabs = delimiter(path) == "\t"
    rows = 0
    with Lines(path) as stream:
        names, comments = read_header(stream, path)
        if not stream.peek(1):
            return
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
        refuse_lost_rows(rows, stream.count - comments - 1, path)


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


def parse_numbers(cells: pa.Array, dtype: type[np.floating] = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Text to numbers, NaN where `MISSING`.

    Args:
        cells: Array of strings.
        dtype: Of the numbers.

    Returns:
        The numbers, and where a cell is neither a finite number nor missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = pc.is_in(cells, value_set=pa.array(MISSING, cells.type), skip_nulls=False)
    present = pc.if_else(missing, None, cells)
    try:
        numbers = present.cast(pa.from_numpy_dtype(dtype)).to_numpy(zero_copy_only=False)
        bad = np.isinf(numbers)
    except pa.ArrowInvalid:
        numbers = np.array([_number(cell) for cell in present.to_pylist()])
        bad = np.isinf(numbers)
        numbers = numbers.astype(dtype)
    return np.where(bad, np.nan, numbers) if bad.any() else numbers, bad


def _number(cell: str | None) -> float:
    """One cell where the fast way gave up: blanks and a plus sign are allowed, anything else is infinity."""
    if cell is None or cell.strip() in MISSING:
        return np.nan
    try:
        return np.inf if "_" in cell else float(cell)
    except ValueError:
        return np.inf


def mark_missing(column: Column) -> Column:
    """Where a column of text says that nothing was measured."""
    return column.str.strip().isin(MISSING)


def no_patient(missing: Column, column: str, path: Path) -> DataError:
    """The error of rows that name no patient.

    Args:
        missing: Where that is so, as `mark_missing` gives it for a column of `read_frames`.
        column: That names the patient.
        path: The table.
    """
    rows = missing.index[missing].tolist()
    more = f", nor do {len(rows) - 1:,} more" if len(rows) > 1 else ""
    return DataError(
        f"{places(path, rows[:1])[0]} has no '{column}'{more}",
        where=str(path),
        fix="name the patient, or remove the line",
    )
