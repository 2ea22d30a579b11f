"""The header of a delimited table, found below comments, behind a hash, or one name short as R writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundation.cohort.reading.cells import number_of
from foundation.cohort.reading.delimited import comma_rows, delimiter, open_cells
from foundation.cohort.reading.lines import Lines
from foundation.errors import DataError

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
    numbers = [number_of(cell) for cell in below[1:]]
    return not np.isinf(numbers).any() and not np.isnan(numbers).all()


def _lacks_name_of_first(names: list[str], row: str) -> bool:
    """Whether a header lacks the name of the first column, and not of another or nothing at all."""
    cells = open_cells(row).split("\t")
    if len(cells) != len(names) + 1 or not cells[-1].strip():
        return False
    return cells[0] == "1" or not any(
        not word or NAMES_ROWS.fullmatch(word) for word in re.split(r"[\W_]+", names[0].lower())
    )
