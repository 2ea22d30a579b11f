"""Damage of tables told by name: unreadable files, ragged and lost rows, rows without a patient, in which line."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.cohort.reading.cells import Column
from foundation.cohort.reading.delimited import is_parquet
from foundation.cohort.reading.header import read_header
from foundation.cohort.reading.lines import Lines, encoding_of, is_empty_row, open_bytes
from foundation.errors import DataError, nearest

if TYPE_CHECKING:
    pass


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
            "is not text in UTF-8 (an accent or umlaut in another encoding, or no text at all)",
            where=str(path),
            fix="save it as UTF-8, or correct its suffix",
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
    line_of_row: dict[int, int] = {}
    wanted = set(rows)
    with Lines(path) as stream:
        row = -read_header(stream, path)[1]
    with open_bytes(path) as file:
        encoding = encoding_of(file.read(2))
    with io.TextIOWrapper(open_bytes(path), encoding=encoding, errors="replace") as text:  # type: ignore[type-var]
        for number, line in enumerate(text, start=1):
            if not is_empty_row(line) and (row := row + 1) in wanted:
                line_of_row[row] = number
    return [f"line {line_of_row[row]}" if row in line_of_row else f"row {row}" for row in rows]


def ragged_row(row: str, found: int, expected: int, path: Path) -> DataError:
    """The error of a row that has more or fewer cells than the header."""
    return DataError(
        f"{row} has {found} cells, the header has {expected}",
        where=str(path),
        fix="mend that row: close an open quote; quote a cell that holds the delimiter; give the first column a name",
    )


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
