"""How patients were split, what every fold reached, and what was chosen in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune.report.answer import THIS_MODEL, Entry
from finetune.report.sections.tables import table
from foundation.metrics.names import plain_name
from foundation.report.page import GAP, Cell, Page
from foundation.wording import counted, decimal, listed


def values_of_folds(page: Page, entry: Entry) -> None:
    """Add the value of each fold, of the model and of every baseline."""
    folds = entry.get("folds") or []
    if not folds:
        return
    page.subsection("Fold by fold")
    methods = {
        THIS_MODEL: folds,
        **{name: score.get("folds") or [] for name, score in (entry.get("baselines") or {}).items()},
    }
    methods = {name: {fold["fold"]: fold.get("value") for fold in of_arm} for name, of_arm in methods.items() if of_arm}
    rows = [
        [fold["fold"], fold.get("n") or 0, *(Cell(decimal(of_arm.get(fold["fold"]))) for of_arm in methods.values())]
        for fold in folds
    ]
    missing = [fold["fold"] for fold in folds if fold.get("value") is None]
    if missing:
        page.text(f"Not to be scored: {counted(len(missing), 'fold')} ({listed(missing)}); left out of the mean.")
    header = ["fold", "test patients", *methods]
    table(page, header, rows, f"{plain_name(entry['metric'])} of each fold's test patients")


def splits(page: Page, metrics: Entry) -> None:
    """Add who took part, how folds were made, and what was chosen in each."""
    counts = metrics.get("splits") or {}
    chosen = metrics.get("chosen") or []
    if not counts and not chosen:
        return
    page.section("Splits and choices", _how(counts) if counts else "")
    left_out = counts.get("left_out") or {}
    if left_out:
        page.table(["left out because of", "patients"], [[reason, count] for reason, count in left_out.items()])
    folds = counts.get("folds") or []
    if folds:
        rows = [[fold["fold"], fold["train"], fold["test"]] for fold in folds]
        table(page, ["fold", "training", "test"], rows, "Patients of each fold")
    if chosen:
        _chosen(page, chosen)


def _how(counts: Entry) -> str:
    unit = counts.get("by", "patient")
    made = "as published with the cohort" if counts.get("published") else "made by this run"
    left_out = sum((counts.get("left_out") or {}).values())
    used = counted(counts.get("patients") or 0, "patient")
    out = f"{left_out:,} {'is' if left_out == 1 else 'are'} left out" if left_out else "none is left out"
    seen = counts.get("seen_train_only") or 0
    known = f"{counted(seen, 'patient')} whom the model saw in pretraining train only. " if seen else ""
    return (
        f"{used} take part and {out}. {known}The folds are {made}, and no "
        f"{unit} is in both training and test of a fold. SHA-256 of who is where begins with "
        f"{counts.get('hash', '')[:12] or 'nothing'}; two runs with the same hash had the same folds."
    )


def _chosen(page: Page, chosen: Sequence[Entry]) -> None:
    page.text(
        "Settings were chosen in each fold on inner folds of its training patients; no test patient had a part in it."
    )
    keys = list(dict.fromkeys(key for one in chosen for key in one if key not in ("method", "fold")))
    rows = [
        [str(one.get("method", "")), Cell(str(one["fold"])), *(_cell(one.get(key)) for key in keys)]
        for one in sorted(chosen, key=lambda one: str(one.get("method", "")))
    ]
    header = ["trained", "fold", *(key.replace("_", " ") for key in keys)]
    table(page, header, rows, "What each fold chose")


def _cell(value: Any) -> Cell:
    if value is None:
        return GAP
    return Cell(f"{value:g}" if isinstance(value, float) else str(value))
