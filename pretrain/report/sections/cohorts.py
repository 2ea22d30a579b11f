"""The section on the cohorts of a run: what each has, its share of what was drawn, and how often a record was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundation.report.page import GAP, Cell, Page
from foundation.wording import percent

TIMES = {
    "times_each": "times drawn, each record",
    "times_each_pair": "times drawn, each pair",
    "times_each_other": "times drawn, each other record",
}


def add_cohorts(page: Page, cohorts: Sequence[Mapping[str, Any]]) -> None:
    """Add a table of what `Drawing.table` says; nothing where there was a single cohort and no share of pairs."""
    if not cohorts:
        return
    page.section(
        "The cohorts",
        "Training records of each cohort, and what was drawn of them. A pair is a record with both sides of a "
        "contrast, with an image on one side where there are images. An epoch is as many draws as there are training "
        "records, so a record may be drawn more or less often than once in it.",
    )
    times = [key for key in TIMES if key in cohorts[0]]
    shares = [key for key in ("share", "share_of_pairs") if key in cohorts[0]]
    rows = [
        [
            entry["cohort"],
            *(entry[key] for key in ("patients", "records", "pairs")),
            *(Cell(percent(entry[key], 1), shade=entry[key]) for key in shares),
            *(GAP if entry[key] is None else Cell(f"{entry[key]:.1f}") for key in times),
        ]
        for entry in cohorts
    ]
    if len(rows) > 1:
        whole = [sum(entry[key] for entry in cohorts) for key in shares]
        counts = [sum(entry[key] for entry in cohorts) for key in ("records", "pairs")]
        rows.append(["all", GAP, *counts, *(Cell(percent(share, 1)) for share in whole), *(GAP for _ in times)])
    named = {"share": "share of a batch", "share_of_pairs": "of which pairs"}
    header = ["cohort", "patients", "records", "pairs", *(named[key] for key in shares), *(TIMES[key] for key in times)]
    page.table(header, rows)
