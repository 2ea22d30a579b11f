"""DICOM segmentations (SEG): segments as frames, each placed on the slice of the image that it lies on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from foundation.cohort.annotations.base import Drawing, Grid, annotation_sources
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


@annotation_sources.register("dicom_seg")
class DicomSegSource(DicomObjectSource):
    """Segments by number or label; frames may leave out slices without any.

    A region whose segments are in a file is annotated there, wherever it is empty; one that has none is not.
    """

    class Config(SourceConfig):
        """`files` names one SEG object per scan, such as ``seg/{patient}.dcm`` or ``seg/{patient}/*.dcm``."""

        format: Literal["dicom_seg"]

    def read(self, scan: Scan, grids: Sequence[Grid]) -> Drawing:
        """Read one segmentation.

        Raises:
            DataError: It is damaged, fractional, off the voxels of its image, or holds none of the regions.
        """
        [path] = scan.paths
        dataset = read_object(path, "SEG")
        with damage_named(path):
            segments = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in dataset.SegmentSequence}
            # The background of a label map.
            segments.pop(0, None)
            frames = _frames(dataset, path)
            planes = [_plane(dataset, number) for number in range(len(frames))]
        region_of = self.wanted(segments, path)
        refuse_without_place(grids[0], path)
        grid = next((grid for grid in grids if all(_lies_on(plane, frames.shape, grid) for plane in planes)), None)
        if grid is None:
            raise DataError(
                f"has frames that do not lie on voxels of its image: {' or '.join(map(str, grids))}",
                where=str(path),
                fix="write it on the grid of the image that it was drawn on, or correct `channel`",
            )
        regions = {region: np.zeros(grid.shape, dtype=bool) for region in region_of}
        for number, (plane, frame) in enumerate(zip(planes, frames, strict=True)):
            with damage_named(path):
                drawn = _drawn(dataset, number, frame)
            for segment, mask in drawn.items():
                for region in (region for region, wanted in region_of.items() if segment in wanted):
                    _place(regions[region], mask, plane, grid, path)
        return Drawing(grid, regions)


def _frames(dataset: Dataset, path: Path) -> np.ndarray:
    """[frames, rows, columns]: 0 and 1, or numbers of segments where one frame holds several."""
    stored = np.asarray(dataset.pixel_array)
    stored = stored[None] if stored.ndim == 2 else stored
    kind = str(dataset.SegmentationType)
    if kind == "FRACTIONAL":
        full = int(dataset.MaximumFractionalValue)
        if not np.isin(stored, (0, full)).all():
            raise DataError(
                "holds fractions of voxels, which are no mask", where=str(path), fix="export it as BINARY or LABELMAP"
            )
        return stored // full
    return stored


def _groups(dataset: Dataset, frame: int, name: str) -> Any:
    """A sequence of one item that a frame has of its own, or that all frames share."""
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    return (own[name] if name in own else dataset.SharedFunctionalGroupsSequence[0][name]).value[0]


def _plane(dataset: Dataset, frame: int) -> np.ndarray:
    """[3, 3] columns: LPS millimetres from one column to the next, one row to the next, and the first pixel's place."""
    turned = np.array(_groups(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64)
    down, across = (float(step) for step in _groups(dataset, frame, "PixelMeasuresSequence").PixelSpacing)
    first = np.array(_groups(dataset, frame, "PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
    return np.stack([turned[:3] * across, turned[3:] * down, first], axis=1)


def _corners(plane: np.ndarray, shape: tuple[int, ...], grid: Grid) -> np.ndarray:
    """[4, 3] voxel indices of the first pixel, the last of its row, the last of its column, and the last of all."""
    _, rows, columns = shape
    pixels = np.array([[0, 0, 1], [columns - 1, 0, 1], [0, rows - 1, 1], [columns - 1, rows - 1, 1]], dtype=np.float64)
    return to_indices(pixels @ plane.T, grid)


def _lies_on(plane: np.ndarray, shape: tuple[int, ...], grid: Grid) -> bool:
    """Whether the pixels of a frame are voxels of an image: its corners are, and they are as far apart."""
    corners = _corners(plane, shape, grid)
    near = np.abs(corners - np.rint(corners)).max() <= OFF_GRID
    apart = np.abs(np.rint(corners[1:3]) - np.rint(corners[0])).sum(axis=1)
    return bool(near and (apart == [shape[2] - 1, shape[1] - 1]).all())


def _drawn(dataset: Dataset, frame: int, stored: np.ndarray) -> dict[int, np.ndarray]:
    """Number of each segment in a frame to its pixels, [rows, columns] bool."""
    if str(dataset.SegmentationType) == "LABELMAP":
        return {number: stored == number for number in np.unique(stored).tolist() if number}
    number = int(_groups(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
    return {number: stored.astype(bool)}


def _place(region: np.ndarray, drawn: np.ndarray, plane: np.ndarray, grid: Grid, path: Path) -> None:
    """Set the voxels of a region that are drawn in a frame."""
    rows, columns = np.nonzero(drawn)
    if not len(rows):
        return
    voxels = np.rint(to_indices(np.stack([columns, rows, np.ones(len(rows))], axis=1) @ plane.T, grid)).astype(int)
    if (voxels < 0).any() or (voxels >= grid.shape).any():
        raise DataError(
            "reaches out of its image", where=str(path), fix="draw on the whole image, or correct `channel`"
        )
    region[tuple(voxels.T)] = True
