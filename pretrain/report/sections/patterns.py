"""The section on what training saw: how many samples had which modalities, after modality dropout."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.report.page import Cell, Page
from foundation.wording import percent

MOST_PATTERNS = 30


def add_patterns(page: Page, patterns: Mapping[str, int]) -> None:
    """Add a table of the most frequent patterns; the others are summed."""
    if not patterns:
        return
    page.section(
        "What training saw",
        "The modalities of the training samples, after modality dropout; a sample is one record in one step.",
    )
    ordered = sorted(patterns.items(), key=lambda item: (-item[1], item[0]))
    total = sum(patterns.values())
    rows = [[name.replace("+", " + "), count, _share(count, total)] for name, count in ordered[:MOST_PATTERNS]]
    rest = sum(count for _, count in ordered[MOST_PATTERNS:])
    if rest:
        rows.append([f"{len(ordered) - MOST_PATTERNS} other patterns", rest, _share(rest, total)])
    page.table(["pattern", "samples", "of all"], rows)


def _share(count: int, total: int) -> Cell:
    return Cell(percent(count, total), shade=count / max(total, 1))
