"""Tables in delimited text or Parquet: opened, their columns found, their cells read as text or as numbers."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at run time.)

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from foundation.cohort.reading.lines import PIECE_BYTES, Lines, encoding_of, is_empty_row, open_bytes
from foundation.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = (
    "",
    "NA",
    "na",
    "N/A",
    "n/a",
    "Na",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "<NA>",
    "NaN",
    "nan",
    "NAN",
    "1.#QNAN",
    "-1.#IND",
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

COMMENT = (b"#", b'"#')
"""How comment lines begin; a spreadsheet puts quotes around some."""

NAMES_ROWS = re.compile(
    "id|ids|identifier|gene|genes|geneid|symbol|symbols|hugo|entrez|ensembl|name|names|probe|probes|probeid|"
    "feature|features|sample|samples|sampleid|patient|patients|case|cases|row|rows|index|target|reference|"
    "composite|element|cpg|mirna|protein|peptide|metabolite|compound|chr|chrom|chromosome|description|"
    "transcript"
)
"""Words by which a header calls the column that names its rows."""

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
    suffix = path.with_suffix("").suffix if path.suffix in (".gz", ".bgz") else path.suffix
    if suffix not in DELIMITERS and _begins_with_tabs(path):
        return "\t"
    if suffix not in DELIMITERS:
        sheet = "save the sheet as CSV UTF-8; " if suffix.startswith(".xls") else ""
        raise DataError(
            f"a table cannot be read from the suffix '{suffix}'",
            where=str(path),
            fix=f"{sheet}use one of {', '.join(DELIMITERS)} (each also with .gz), or .parquet",
        )
    return DELIMITERS[suffix]


def _begins_with_tabs(path: Path) -> bool:
    """Whether a file begins as text with tabs does, such as one of Xena's, whose names have no telling end."""
    try:
        with open_bytes(path) as file:
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


def comma_rows(text: str) -> list[list[str]]:
    """The rows of comma-separated lines, whose cells may be quoted, of whatever length."""
    limit = csv.field_size_limit(len(text) + 1)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=","))
    finally:
        csv.field_size_limit(limit)


def read_header(
    stream: Lines, path: Path, wanted: Sequence[str] = (), *, as_it_stands: bool = False
) -> tuple[list[str], int]:
    """Read up to and with the header: the first line that is no comment, or a comment that is one.

    A comment is the header where it has as many cells as the line below it and that line has numbers, or lacks a wanted
    column that the comment has. Where a tab-separated header is one cell shorter than its rows, as R writes it, the
    first column has no name.

    Args:
        stream: At its beginning.
        path: The table, for its delimiter and for messages.
        wanted: Names that the header has.
        as_it_stands: The table has no header: give the cells of the first line that is no comment.

    Returns:
        The names of the columns, and how many lines were read.

    Raises:
        DataError: There is no such line.
    """
    comment, read = "", 0
    while stream.peek(1).startswith(COMMENT):
        comment, read = stream.readline().decode("utf-8").rstrip("\n"), read + 1
    if comment.strip() == "#1.2":  # Broad's GCT, whose next line is the size of the table.
        stream.readline()
        return read_header(stream, path, wanted)[0], read + 2
    if comment and not as_it_stands:
        first, *others = _split(comment, path)
        names = [first.lstrip("#").strip(), *others]
        if _is_header(names, _split(_next_line(stream), path), wanted):
            return names, read
    text = stream.readline().decode("utf-8").rstrip("\n")
    if not text.strip():
        raise DataError("the table is empty", where=str(path), fix="name a table with a header and rows")
    if text.startswith(POINTER):
        raise DataError(
            "is a pointer of Git LFS, not the file itself",
            where=str(path),
            fix="run `git lfs pull` where it was cloned",
        )
    names = _split(text, path)
    for other, called in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if len(names) == 1 and other in text:
            raise DataError(
                f"seems to separate its cells by {called}",
                where=str(path),
                fix="save it with commas and decimal points as .csv, or with tabs as .tsv",
            )
    if not as_it_stands and delimiter(path) == "\t" and _lacks_name_of_first(names, _next_line(stream)):
        names = ["", *names]
    return names, read + 1


def _split(line: str, path: Path) -> list[str]:
    """The cells of one line, without blanks around them."""
    cells = open_cells(line).split("\t") if delimiter(path) == "\t" else (comma_rows(line) or [[""]])[0]
    return [cell.strip() for cell in cells]


def _next_line(stream: Lines) -> str:
    """The line that will be read next, as much of it as has been read ahead."""
    return stream.peek(1).partition(b"\n")[0].decode("utf-8", errors="replace")


def _is_header(names: list[str], below: list[str], wanted: Sequence[str]) -> bool:
    if len(names) != len(below) or len(names) < 2:
        return False
    if wanted:
        return set(wanted) <= set(names) and not set(wanted) <= set(below)
    numbers = [_number(cell) for cell in below[1:]]
    return not np.isinf(numbers).any() and not np.isnan(numbers).all()


def _lacks_name_of_first(names: list[str], row: str) -> bool:
    """Whether a header lacks the name of the first column, and not of another or nothing at all."""
    cells = open_cells(row).split("\t")
    if len(cells) != len(names) + 1 or not cells[-1].strip():
        return False
    return cells[0] == "1" or not any(
        not word or NAMES_ROWS.fullmatch(word) for word in re.split(r"[\W_]+", names[0].lower())
    )


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


def text_of(cells: pa.Array, name: str, path: Path) -> pa.Array:
    """A column of whatever type as text without blanks around it, empty where there is nothing.

    Raises:
        DataError: It holds what is neither text nor a number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if pa.types.is_duration(cells.type):
            raise pa.ArrowNotImplementedError
        text = cells.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise DataError(
            f"column '{name}' holds {cells.type}, which is neither text nor a number",
            where=str(path),
            fix="leave that column out, or write it as text or numbers",
        ) from None
    return pc.utf8_trim_whitespace(text.fill_null(""))


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
