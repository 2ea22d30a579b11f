"""Delimited text: what separates the cells of a file, and its quotes."""

from __future__ import annotations

import csv
import io
import re
import zlib
from pathlib import Path

from foundation.cohort.reading.lines import open_bytes
from foundation.errors import DataError

DELIMITERS = {".tsv": "\t", ".txt": "\t", ".tab": "\t", ".maf": "\t", ".seg": "\t", ".csv": ","}


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


def open_cells(text: str) -> str:
    """Lines of a tab-separated table without the quotes around whole cells; any other quote is a character."""
    if '"' not in text:
        return text
    return QUOTED.sub(lambda cell: cell[1] + cell[2].replace('""', '"'), text)


def comma_rows(text: str) -> list[list[str]]:
    """The rows of comma-separated lines, whose cells may be quoted, of whatever length."""
    limit = csv.field_size_limit(len(text) + 1)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=","))
    finally:
        csv.field_size_limit(limit)
