"""What a source of annotations is: drawings that are listed and then read, each on the grid of its image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from foundation.cohort.resampling import zooms
from foundation.cohort.sources.base import Scan, SourceConfig, Volume
from foundation.errors import DataError
from foundation.registry import Registry

annotation_sources: Registry = Registry("annotation source", "format")

Values = Mapping[str, Sequence[int | str]]
"""Region to what the source calls it: values of voxels, or words."""

ALL = "all regions"
"""The channel of a drawing that holds every region."""


SAME_CORNER = 0.1
"""Voxels that the corners of two grids may lie apart: headers round places, each format in its own way."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a source image lie.

    Attributes:
        affine: [4, 4], voxel indices to millimetres in RAS+ space.
        shape: [3]; 1 for the axis that a 2D image lacks.
        placed: Whether the file says where in space it lies.
    """

    affine: np.ndarray
    shape: tuple[int, ...]
    placed: bool

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """The grid of a scan as read."""
        return cls(np.asarray(volume.affine, dtype=np.float64), (*volume.voxels.shape, 1)[:3], volume.placed)

    def __str__(self) -> str:
        from nibabel.orientations import aff2axcodes

        spacing = " x ".join(f"{zoom:.4g}" for zoom in zooms(self.affine))
        corner = ", ".join(f"{place:.5g}" for place in self.affine[:3, 3].tolist())
        axes = "".join(aff2axcodes(self.affine))
        where = f" of {spacing} mm in {axes} from ({corner})" if self.placed else ", at no stated place"
        return f"{' x '.join(map(str, self.shape))} voxels{where}"

    def is_that_of(self, other: Grid) -> bool:
        """Whether both have the same voxels, in whatever order; two that say no place, where they have as many."""
        if self.placed != other.placed or not self.placed:
            return self.placed == other.placed and self.shape == other.shape
        from_other = np.linalg.solve(other.affine, self.affine)
        along = np.abs(from_other[:3, :3]).argmax(axis=0)
        corners = np.array([*np.ndindex(2, 2, 2)]) * self.shape - 0.5
        there = corners @ from_other[:3, :3].T + from_other[:3, 3]
        at_low, at_high = np.abs(there + 0.5) < SAME_CORNER, np.abs(there + 0.5 - other.shape) < SAME_CORNER
        return (
            sorted(along) == [0, 1, 2]
            and self.shape == tuple(other.shape[a] for a in along)
            and bool((at_low | at_high).all())
        )


@dataclass
class Drawing:
    """Regions as drawn on a source image.

    Attributes:
        grid: Of that image.
        regions: Region to bool [X, Y, Z] on that grid; a region that was looked for and not found is empty.
    """

    grid: Grid
    regions: dict[str, np.ndarray]


class AnnotationSource(ABC):
    """Annotations of the images of one modality, in one format.

    Args:
        config: The part's own config.
        root: The cohort's root folder.
        groups: Values of ``{group}``.
        values: Region to what it is called in the source.
        leave_out: Values of voxels that are no region.

    Attributes:
        remarks: What was done beside reading that a user should know, to how often.
        other_channels: What is in the source beside the regions, to how often.
    """

    Config: type[SourceConfig]
    drawn: ClassVar[Literal["masks", "boxes"]] = "masks"

    def __init__(
        self, config: SourceConfig, root: Path, groups: Sequence[str], values: Values, leave_out: Sequence[int] = ()
    ) -> None:
        self.config = config
        self.root = root
        self.groups = list(groups)
        self.values = values
        self.leave_out = list(leave_out)
        self.remarks: Counter[str] = Counter()
        self.other_channels: Counter[str] = Counter()

    @property
    def companions(self) -> list[Path]:
        """Tables that all drawings share; they are hashed once."""
        return []

    @abstractmethod
    def list_scans(self) -> list[Scan]:
        """Every drawing there is, sorted; `channel` is the region that it holds, or `ALL`.

        Raises:
            ConfigError: The config does not fit the regions.
            DataError: There is none, or one is there twice.
        """

    def files(self, scan: Scan) -> list[Path]:
        """The files of this drawing alone, which are hashed."""
        return list(scan.paths)

    @abstractmethod
    def read(self, scan: Scan, grids: Sequence[Grid]) -> Drawing:
        """Read one drawing.

        Args:
            scan: As listed.
            grids: Of the image's channels on one of which it may be drawn, no two alike; at least one.

        Raises:
            DataError: It is damaged, lies on another grid, or holds what is no region.
        """


def same_grid(volume: Volume, grids: Sequence[Grid], where: Path) -> Grid:
    """The grid of a mask, which must be one of those of its image, its voxels in whatever order.

    Raises:
        DataError: It is none of them.
    """
    own = Grid.of(volume)
    found = next((grid for grid in grids if own.is_that_of(grid)), None)
    if found is None:
        raise DataError(
            f"lies on another grid than its image: {own}, not {' or '.join(map(str, grids))}",
            where=str(where),
            fix="write the mask on the grid of the image that it was drawn on, or correct `channel`",
        )
    if not own.placed:
        return found
    # Exactly on the voxels of the image, whatever the two headers rounded.
    return Grid(found.affine @ np.rint(np.linalg.solve(found.affine, own.affine)), own.shape, own.placed)


def only_grid(grids: Sequence[Grid], where: Path) -> Grid:
    """The grid of an image, for a drawing that does not say itself on which it lies.

    Raises:
        DataError: The channels of the image lie on several.
    """
    if len(grids) > 1:
        raise DataError(
            f"the channels of its image lie on different grids: {grids[0]} and {grids[1]}",
            where=str(where),
            fix="say with `channel` of the annotation which of them it was drawn on",
        )
    return grids[0]
