"""Tables of a report: long ones are folded away."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.report.page import Entry, Page

MOST_ROWS = 12
"""Of a table that stands open."""


def table(page: Page, header: Sequence[str], rows: Sequence[Sequence[Entry]], caption: str) -> None:
    """Add a table, folded away where it is long."""
    if len(rows) <= MOST_ROWS:
        page.table(header, rows, caption)
        return
    with page.folded(f"{caption} ({len(rows)} rows)"):
        page.table(header, rows)
