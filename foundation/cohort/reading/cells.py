"""Cells of tables: which say that nothing was measured, and the others as text or as numbers."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at run time.)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from foundation.errors import DataError

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


Column: TypeAlias = Any
"""A pandas Series."""


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
        numbers = np.array([number_of(cell) for cell in present.to_pylist()])
        bad = np.isinf(numbers)
        numbers = numbers.astype(dtype)
    return np.where(bad, np.nan, numbers) if bad.any() else numbers, bad


def number_of(cell: str | None) -> float:
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
