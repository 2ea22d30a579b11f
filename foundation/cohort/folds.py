"""Published folds: files that say which patients each fold trains and validates on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from foundation.cohort.barcodes import PatientRule
from foundation.cohort.clinical import ClinicalTable, read_clinical
from foundation.config import Config
from foundation.errors import DataError, nearest

SPLITS = ("train", "val", "test")

AS_WRITTEN = PatientRule()
"""Changes no name."""


class PublishedFolds(Config):
    """Published folds: one file per fold with a column of patients and one of train or val."""

    files: str = Field(description="Pattern with {fold}, and {group} where there are groups.")
    patient: str = "patient"
    split: str = "split"


def find_folds(patterns: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Every file that matches a pattern with ``{fold}`` in its name, with the text found there.

    Raises:
        DataError: A pattern matches nothing.
    """
    for pattern in patterns:
        before, _, after = pattern.name.partition("{fold}")
        paths = sorted(pattern.parent.glob(f"{before}*{after}"))
        if not paths:
            raise DataError("no file of folds", where=str(pattern), fix="correct `folds.files`")
        for path in paths:
            yield path.name[len(before) : len(path.name) - len(after)], path


def read_folds(
    folds: PublishedFolds, paths: Iterable[tuple[str, Path]], patients: set[str], rule: PatientRule = AS_WRITTEN
) -> dict[str, dict[str, str]]:
    """Fold to patient to split, over all groups.

    Args:
        folds: Which columns to read.
        paths: Fold and file.
        patients: Of the cohort.
        rule: Whose case and separators patients get.

    Raises:
        DataError: A column is missing, a split is unknown, or a patient is a stranger or appears twice in a fold.
    """
    read: dict[str, dict[str, str]] = {}
    for fold, path in paths:
        here, before = _read_fold(folds, path, patients, rule), read.setdefault(fold, {})
        twice = sorted(set(here) & set(before))
        if twice:
            raise DataError(
                f"{len(twice)} patients are also in another file of fold {fold}, first '{twice[0]}'",
                where=str(path),
                fix="keep each patient in one file per fold",
            )
        before.update(here)
    return {fold: dict(sorted(read[fold].items())) for fold in sorted(read)}


def _read_fold(folds: PublishedFolds, path: Path, patients: set[str], rule: PatientRule) -> dict[str, str]:
    frame = read_clinical(ClinicalTable(files=path.name, patient=folds.patient), path)
    if folds.split not in frame:
        raise DataError(f"has no column '{folds.split}'", where=str(path), fix=nearest(folds.split, frame.columns))
    rule.refuse_merged(frame[folds.patient], where=str(path))
    fold = dict(zip(map(rule.normalise, frame[folds.patient]), frame[folds.split], strict=True))
    wrong = {split for split in fold.values() if split not in SPLITS}
    if wrong:
        raise DataError(
            f"splits must be {', '.join(SPLITS)}, not {sorted(wrong)}", where=str(path), fix="rename them in the file"
        )
    strangers = sorted(set(fold) - patients)
    if strangers:
        raise DataError(
            f"{len(strangers)} patients are not in the cohort, first '{strangers[0]}'",
            where=str(path),
            fix="use the folds that were published for this cohort",
        )
    return fold
