"""The sections on folds: how patients were split, the score of each fold, and the settings it chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune.config import KEPT
from finetune.report.answer import THIS_MODEL, Entry, method_named
from finetune.report.sections.tables import table
from foundation.metrics.names import plain_name
from foundation.report.page import GAP, Cell, Page
from foundation.wording import counted, decimal, listed

CHOSEN = {
    "labels": "labelled patients",
    "train": "training patients",
    "learning_rate": "learning rate",
    "rank": "rank",
    "dropout": "dropout",
    "taught_by": "learns from",
    "epochs": "epochs",
    "cv_log_likelihood": "log-likelihood on inner folds",
}
"""What a method chose, to what it is called; the blocks that heads read stand with each task."""


def values_of_folds(page: Page, entry: Entry) -> None:
    """Add the value of each fold, of the model and of every baseline."""
    folds = entry.get("folds") or []
    if not folds:
        return
    page.subsection("Fold by fold")
    methods = {
        **({KEPT: entry["kept"].get("folds") or []} if entry.get("kept") else {}),
        THIS_MODEL: folds,
        **{name: score.get("folds") or [] for name, score in (entry.get("baselines") or {}).items()},
    }
    values = {name: {fold["fold"]: fold.get("value") for fold in found} for name, found in methods.items() if found}
    rows = [
        [fold["fold"], fold.get("n") or 0, *(Cell(decimal(found.get(fold["fold"]))) for found in values.values())]
        for fold in folds
    ]
    missing = [fold["fold"] for fold in folds if fold.get("value") is None]
    if missing:
        one = len(missing) == 1
        page.text(
            f"{counted(len(missing), 'fold')} ({listed(missing)}) could not be scored and "
            f"{'is' if one else 'are'} left out of the mean."
        )
    header = ["fold", "test patients", *values]
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
    for sentence in inner_folds_by_patient(counts.get("inner_by_patient") or []):
        page.text(sentence)
    folds = counts.get("folds") or []
    if folds:
        rows = [[fold["fold"], fold["train"], fold["test"]] for fold in folds]
        table(page, ["fold", "training", "test"], rows, "Patients of each fold")
    if chosen:
        _chosen(page, chosen)


def inner_folds_by_patient(folds: Sequence[str]) -> list[str]:
    """That choices were not made by site, in a sentence; nothing where they were."""
    if not folds:
        return []
    where = f"In {'fold' if len(folds) == 1 else 'folds'} {listed(folds)}"
    why = "the training patients have too few sites for inner folds by site, or too few outcomes in some of them"
    return [f"{where}, {why}: settings were chosen on inner folds by patient. No site is in both training and test."]


def _how(counts: Entry) -> str:
    unit = counts.get("by", "patient")
    made = "as published with the cohort" if counts.get("published") else "made by this run"
    left_out = sum((counts.get("left_out") or {}).values())
    used = counted(counts.get("patients") or 0, "patient")
    out = f"{left_out:,} {'is' if left_out == 1 else 'are'} left out" if left_out else "none is left out"
    seen = counts.get("seen_train_only") or 0
    known = f"{counted(seen, 'patient')} whom the model saw in pretraining are used for training only. " if seen else ""
    repeats = counts.get("repeats") or 1
    again = f"They were split {repeats} times: fold 1.0 is the first of the second time. " if repeats > 1 else ""
    return (
        f"{used} take part and {out}. {known}{again}The folds are {made}, and no "
        f"{unit} is in both training and test of a fold. The SHA-256 of the folds begins with "
        f"{counts.get('hash', '')[:12] or 'nothing'}; runs with the same hash have the same folds."
    )


def _chosen(page: Page, chosen: Sequence[Entry]) -> None:
    page.text("In each fold, settings were chosen on inner folds of its training patients; no test patient was used.")
    shown = {key: heading for key, heading in CHOSEN.items() if any(one.get(key) is not None for one in chosen)}
    rows = [
        [method_named(str(one.get("method", ""))), Cell(str(one["fold"])), *(_cell(one.get(key)) for key in shown)]
        for one in sorted(chosen, key=lambda one: str(one.get("method", "")))
    ]
    header = ["method", "fold", *shown.values()]
    table(page, header, rows, "What each fold chose")


def _cell(value: Any) -> Cell:
    if value is None:
        return GAP
    if isinstance(value, list):
        return Cell(listed(value) if value else "none")
    return Cell(f"{value:g}" if isinstance(value, float) else str(value))
