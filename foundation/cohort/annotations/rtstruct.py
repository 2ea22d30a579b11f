"""DICOM structure sets (RTSTRUCT): closed contours on the slices of the image, filled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from foundation.cohort.annotations.base import Drawing, Grid, annotation_sources, only_grid
from foundation.cohort.annotations.dicom_objects import (
    OFF_GRID,
    DicomObjectSource,
    read_object,
    refuse_without_place,
    to_indices,
)
from foundation.cohort.reading.dicom_frames import damage_named
from foundation.cohort.sources.base import Scan, SourceConfig
from foundation.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}

BEYOND = 1.0
"""Voxels that a contour may reach beyond the middles of the outermost ones."""


@annotation_sources.register("rtstruct")
class RtStructSource(DicomObjectSource):
    """Structures by number or name.

    A voxel is inside where its middle is; a contour inside another one is a hole. Nothing is filled in between slices
    that have a contour.
    """

    class Config(SourceConfig):
        """`files` names one RTSTRUCT object per scan, such as ``rt/{patient}.dcm`` or ``rt/{patient}/*.dcm``."""

        format: Literal["rtstruct"]

    def read(self, scan: Scan, grids: Sequence[Grid]) -> Drawing:
        """Read one structure set.

        Raises:
            DataError: It is damaged, off the slices of its image, or holds none of the regions.
        """
        [path] = scan.paths
        dataset = read_object(path, "RTSTRUCT")
        with damage_named(path):
            names = {int(r.ROINumber): str(r.get("ROIName", "")) for r in dataset.StructureSetROISequence}
        region_of = self.wanted(names, path)
        grid = only_grid(grids, path)
        refuse_without_place(grid, path)
        regions = {region: np.zeros(grid.shape, dtype=bool) for region in region_of}
        for region, wanted in region_of.items():
            for number in wanted:
                with damage_named(path):
                    contours = self._contours(dataset, number)
                structure = np.zeros(grid.shape, dtype=bool)
                slices = {_fill(structure, to_indices(contour, grid), path) for contour in contours}
                regions[region] |= structure
                if slices and max(slices) - min(slices) >= len(slices):
                    self.remarks["structures without a contour on a slice between others"] += 1
        return Drawing(grid, regions)

    def _contours(self, dataset: Dataset, number: int) -> list[np.ndarray]:
        """[n, 3] corners in LPS millimetres of each closed contour of a structure."""
        found = []
        for structure in dataset.get("ROIContourSequence", []):
            if int(structure.ReferencedROINumber) != number:
                continue
            for contour in structure.get("ContourSequence", []):
                if str(contour.ContourGeometricType) in CLOSED:
                    found.append(np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3))
                else:
                    self.remarks["points and open contours of structures, left out"] += 1
        return found


def _fill(structure: np.ndarray, corners: np.ndarray, path: Path) -> int:
    """Turn over the voxels inside a contour, whose corners [n, 3] are fractional voxel indices; gives its slice."""
    across = int(np.argmin(np.ptp(corners, axis=0)))
    height = float(corners[:, across].mean())
    if np.abs(corners[:, across] - np.rint(height)).max() > OFF_GRID:
        raise DataError(
            f"has a contour that does not lie on a slice of its image, but at {height:.2f} of its slices",
            where=str(path),
            fix="use the image that it was drawn on, or correct `channel`",
        )
    plane = [axis for axis in range(3) if axis != across]
    sizes = np.array(structure.shape)
    low, high = corners[:, plane].min(axis=0), corners[:, plane].max(axis=0)
    if not 0 <= round(height) < sizes[across] or (low < -BEYOND).any() or (high > sizes[plane] - 1 + BEYOND).any():
        raise DataError("reaches out of its image", where=str(path), fix="use the image that it was drawn on")
    flat = np.moveaxis(structure, across, 0)[round(height)]
    flat ^= inside(corners[:, plane], flat.shape)
    return round(height)


def inside(corners: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[A, B] bool: which points of a grid lie inside a closed polygon, by how many edges are crossed on the way there.

    Args:
        corners: [n, 2] in indices of the grid.
        shape: Of the grid.
    """
    crossed = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for (a, b), (next_a, next_b) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = sorted((a, next_a))
        lines = np.arange(max(0, int(np.ceil(first))), min(shape[0], int(np.ceil(last))))
        if len(lines):
            at = b + (lines - a) * ((next_b - b) / (next_a - a))
            np.add.at(crossed, (lines, np.clip(np.ceil(at), 0, shape[1]).astype(int)), 1)
    return np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1
