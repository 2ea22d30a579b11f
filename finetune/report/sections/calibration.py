"""The section on calibration: whether probabilities and numbers can be taken at their word, in each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune.report.answer import Entry, of_kept, subject
from finetune.report.sections.tables import table
from foundation.metrics.names import plain_name
from foundation.report.page import GAP, Cell, Page
from foundation.wording import counted, decimal, interval, listed, p_number, p_text

SIGNIFICANT = 0.05

Column = tuple[str, str]
"""``scores`` or ``p_values``, and the name of one before its first ``/``."""

MEANINGS = {
    "calibration_error": "The calibration error is how far probabilities lie from the shares that they should be.",
    "calibration_slope": "A slope below 1 says that predictions are too extreme, above 1 that they are too cautious.",
    "calibration_intercept": "An intercept above 0 says that the truth lies higher than predicted.",
    "observed_by_expected": (
        "More events observed (by Kaplan-Meier) than expected say that survival is predicted too long."
    ),
}


def calibration(page: Page, entry: Entry) -> None:
    """Add what is told of the predictions as a whole, and of each time, class or endpoint; in words before numbers."""
    groups: Entry = of_kept(entry).get("calibration") or {}
    if not groups:
        return
    page.subsection("Calibration")
    whose = f"This is the calibration of {subject(entry)}, of the test patients of all folds together."
    page.text(" ".join([_d_calibrated(groups), whose, *_meanings(groups)]))
    whole = _columns(groups, of_parts=False)
    if whole:
        rows = [[name, numbers["n"], *_cells(numbers, whole, "")] for name, numbers in groups.items()]
        header = ["group", "patients", *map(_heading, whole)]
        table(page, header, rows, "Calibration of each group, with 95\u00a0% intervals in brackets")
    parts = [(name, part) for name, numbers in groups.items() for part in numbers.get("counts") or {}]
    if parts:
        columns = _columns(groups, of_parts=True)
        rows = [
            [name, _of(part), *_counts(groups[name], part), *_cells(groups[name], columns, f"/{part}")]
            for name, part in parts
        ]
        header = ["group", "of", "observed", "expected", *map(_heading, columns)]
        table(page, header, rows, "What was observed and what was expected")


def _d_calibrated(groups: Entry) -> str:
    """In how many groups the predicted survival probabilities agree with the times of the events."""
    known = {
        name: numbers["p_values"]["d_calibration"]
        for name, numbers in groups.items()
        if (numbers.get("p_values") or {}).get("d_calibration") is not None
    }
    if not known:
        return ""
    failed = [f"{name} ({p_text(p_value)})" for name, p_value in known.items() if p_value <= SIGNIFICANT]
    agreed = len(known) - len(failed)
    if len(groups) == 1:
        p_value = p_text(next(iter(known.values())))
        first = f"The predicted survival probabilities are {'not ' if failed else ''}D-calibrated ({p_value})."
    else:
        first = f"The predicted survival probabilities are D-calibrated (p > {SIGNIFICANT:g}) in {agreed} of "
        first += f"{counted(len(known), 'group')}{f', not in {listed(failed)}' if failed else ''}."
    return (
        f"{first} Where they are, about a tenth of the patients have the event in each tenth of the probability that "
        "was predicted for them. A test of few events misses much, and up to one in twenty rejects a calibrated model."
    )


def _meanings(groups: Entry) -> list[str]:
    told = {name.partition("/")[0] for numbers in groups.values() for name in numbers.get("scores") or {}}
    return [sentence for name, sentence in MEANINGS.items() if name in told]


def _columns(groups: Entry, *, of_parts: bool) -> list[Column]:
    """Those that are told of predictions as a whole, or of each time, class or endpoint."""
    return [
        *dict.fromkeys(
            (kind, name.partition("/")[0])
            for kind in ("scores", "p_values")
            for numbers in groups.values()
            for name in numbers.get(kind) or {}
            if ("/" in name) == of_parts
        )
    ]


def _heading(column: Column) -> str:
    kind, stem = column
    return f"{plain_name(stem)}, p" if kind == "p_values" else plain_name(stem)


def _cells(numbers: Entry, columns: Sequence[Column], ending: str) -> list[Cell]:
    return [_cell((numbers.get(kind) or {}).get(stem + ending), kind) for kind, stem in columns]


def _cell(value: Any, kind: str) -> Cell:
    if value is None:
        return GAP
    if kind == "p_values":
        return Cell(p_number(value))
    bounds = interval(value.get("ci95"))
    return Cell(decimal(value.get("mean")) + (f" ({bounds})" if bounds != interval(None) else ""))


def _of(part: str) -> str:
    return f"at {part}" if part.replace(".", "", 1).isdigit() else part


def _counts(numbers: Entry, part: str) -> list[Cell]:
    count = numbers["counts"][part]
    return [GAP if count.get(key) is None else Cell(f"{count[key]:,.1f}") for key in ("observed", "expected")]
