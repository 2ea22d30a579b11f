"""What annotations in DICOM share: one object per scan, its items called by number or word, its places on the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.cohort.annotations.base import ALL, AnnotationSource, Grid
from foundation.cohort.reading.dicom_frames import damage_named
from foundation.cohort.reading.scans import find_scans, only_file
from foundation.cohort.reading.stacks import LPS_TO_RAS
from foundation.cohort.sources.base import Scan
from foundation.errors import DataError
from foundation.wording import listed

if TYPE_CHECKING:
    from pydicom import Dataset

OFF_GRID = 0.2
"""Voxels that a place may lie off those of the image: positions are rounded, and slices off their fitted grid."""

MOST_NAMED = 5
"""Items that a message names."""


class DicomObjectSource(AnnotationSource):
    """One DICOM object per scan, found by `files`."""

    def list_scans(self) -> list[Scan]:
        """Every object there is, sorted.

        Raises:
            ConfigError: A placeholder is missing or unknown.
            DataError: There is none, or one scan has two.
        """
        found = find_scans(self.config.files, self.root, [ALL], self.groups)
        return [Scan(*key, paths=(only_file(key, paths),)) for key, paths in found.items()]

    def wanted(self, items: Mapping[int, str], path: Path) -> dict[str, list[int]]:
        """Region to the numbers of its items; those that no region has are left out, with a remark.

        Args:
            items: Number of each item to its name.
            path: For messages.

        Raises:
            DataError: No region has any.
        """
        found = {
            region: [number for number, name in items.items() if number in called or name in map(str, called)]
            for region, called in self.values.items()
        }
        found = {region: numbers for region, numbers in found.items() if numbers}
        if not found:
            names = listed([f"{number} '{name}'" for number, name in list(items.items())[:MOST_NAMED]])
            more = " and more" if len(items) > MOST_NAMED else ""
            raise DataError(
                f"holds none of the regions, but {names or 'nothing'}{more}",
                where=str(path),
                fix="write under `regions` what they are called in the file",
            )
        others = len(items) - len({number for numbers in found.values() for number in numbers})
        if others:
            self.remarks["structures that no region names, left out"] += others
        return found


def read_object(path: Path, modality: str) -> Dataset:
    """Read a DICOM object of a modality such as SEG.

    Raises:
        DataError: It is damaged, or of another modality.
    """
    from pydicom import dcmread

    with damage_named(path):
        dataset = dcmread(path)
        found = str(dataset.get("Modality", ""))
    if found != modality:
        what = f"is DICOM of modality '{found}', not {modality}"
        raise DataError(what, where=str(path), fix="correct `files` or `format` of the annotation")
    return dataset


def to_indices(places_LPS: np.ndarray, grid: Grid) -> np.ndarray:
    """[n, 3] places in DICOM's millimetres as fractional voxel indices of an image."""
    to_index = np.linalg.inv(grid.affine) @ LPS_TO_RAS
    return places_LPS @ to_index[:3, :3].T + to_index[:3, 3]


def refuse_without_place(grid: Grid, path: Path) -> None:
    """Refuse an image that does not say where it lies, as DICOM objects are drawn in space.

    Raises:
        DataError: It does not.
    """
    if not grid.placed:
        raise DataError(
            "is drawn in space, and its image does not say where it lies",
            where=str(path),
            fix="use the image as DICOM, or write the annotation as a mask in the format of the image",
        )
