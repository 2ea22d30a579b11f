"""The section on published folds: how many patients each split has."""

from __future__ import annotations

from foundation.cohort.manifest import Manifest
from foundation.report.page import Page


def add_folds(page: Page, manifest: Manifest) -> None:
    """Add a row for each fold; nothing where none was published with the cohort."""
    if not manifest.folds:
        return
    page.section("Published folds")
    splits = sorted({split for fold in manifest.folds.values() for split in fold}, key=_split_order)
    rows = [(fold, *(sizes.get(split, 0) for split in splits)) for fold, sizes in manifest.folds.items()]
    page.table(["fold", *splits], rows, "Patients per split")


def _split_order(split: str) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(split) if split in order else len(order)), split
