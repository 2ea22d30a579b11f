"""How well regions are found in the images of a fold's test patients, where somebody drew them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finetune.splits import Fold
from finetune.study import Study
from foundation.finding.cohort import FoundCohort
from foundation.finding.finder import Finder, dice

FINDING = "finding"
FILE = "found.json"

LIKELY = 0.5
"""How surely a voxel is of a region to be taken for it."""


def write_found(study: Study, fold: Fold, folder: Path) -> None:
    """Write the Dice coefficients of test patients, by annotation and region; nobody of them taught a finder.

    Args:
        study: Of the fold; see `Study.finding`.
        fold: Of the study.
        folder: Gets `FILE`.
    """
    assert isinstance(study.cohort, FoundCohort)
    finders = [finder for finder in study.cohort.finders.values() if finder is not None]
    rows = study.one_each(fold.test)
    told = {finder.document.annotation: _dice(study.cohort, finder, rows) for finder in finders}
    (folder / FILE).write_text(json.dumps(told), encoding="utf-8")


def _dice(cohort: FoundCohort, finder: Finder, rows: np.ndarray) -> dict[str, list[float]]:
    """Region to the coefficient of each image in which somebody looked for it."""
    found: dict[str, list[float]] = {region: [] for region in finder.document.regions}
    for region, value in _of_images(cohort, finder, rows):
        found[region].append(value)
    return found


def _of_images(cohort: FoundCohort, finder: Finder, rows: np.ndarray) -> Iterator[tuple[str, float]]:
    for row in rows.tolist():
        drawn = cohort.of.annotation(finder.document.annotation, row)
        if drawn is None:
            continue
        found_RXYZ = finder.found(cohort.of, row) > LIKELY
        for r, region in enumerate(finder.document.regions):
            if drawn.annotated[r]:
                yield region, dice(found_RXYZ[r], drawn.regions[r])
