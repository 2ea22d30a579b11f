"""Boxes around regions: a table with a row for each box of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from foundation.cohort.annotations.base import (
    ALL,
    AnnotationSource,
    Drawing,
    Grid,
    Values,
    annotation_sources,
    only_grid,
)
from foundation.cohort.reading.cells import number_of
from foundation.cohort.reading.tables import column_names, find_column, read_frames
from foundation.cohort.sources.base import Scan, SourceConfig
from foundation.errors import ConfigError, DataError

BEYOND = 0.02
"""Of the size of the image, how far a box may reach beyond it: coordinates are rounded."""


class Box(NamedTuple):
    """A row of the table: the word for its region, and its corners as text; one without corners holds nothing."""

    word: str
    cells: tuple[str, ...]


@annotation_sources.register("boxes")
class BoxSource(AnnotationSource):
    """Boxes along the axes of the image as it lies in its file.

    Coordinates count edges of voxels: voxel i reaches from i to i + 1, and relative ones go from 0 to 1. Voxels whose
    centre is inside belong to the region. Several rows of an image are several boxes; a row whose coordinates are all
    missing says that there is none.
    """

    drawn: ClassVar[Literal["masks", "boxes"]] = "boxes"

    class Config(SourceConfig):
        """`files` names the table; `centre` and `size`, or `low` and `high`, the columns of each axis: x, y (and z).

        x runs along the columns of an image file or DICOM slice, y along its rows, z over slices; in NIfTI they are
        the axes of the array.
        """

        format: Literal["boxes"]
        patient: str = Field("patient", description="Column of the patient.")
        time_point: str | None = Field(None, description="Column of the time point, as `files` of the image has it.")
        region: str | None = Field(None, description="Column of the word for the region, where there are several.")
        centre: list[str] = Field([], description="Columns of the centre, with `size`.")
        size: list[str] = Field([], description="Columns of the length along each axis.")
        low: list[str] = Field([], description="Columns of the corner at the lower end of each axis, with `high`.")
        high: list[str] = Field([], description="Columns of the opposite corner.")
        units: Literal["relative", "voxels"] = Field(description="Of coordinates: the image's size, or its voxels.")

        @model_validator(mode="after")
        def _is_one_kind_of_box(self) -> BoxSource.Config:
            given = [name for name in ("centre", "size", "low", "high") if getattr(self, name)]
            if given not in (["centre", "size"], ["low", "high"]):
                raise ValueError("a box needs `centre` and `size`, or `low` and `high`")
            first, second = (getattr(self, name) for name in given)
            if len(first) != len(second) or len(first) not in (2, 3):
                raise ValueError(f"`{given[0]}` and `{given[1]}` need two columns each for 2D images, or three")
            return self

        @property
        def columns(self) -> list[str]:
            """Columns of the coordinates: of the centre or lower corner, then of the size or higher corner."""
            return [*self.centre, *self.size, *self.low, *self.high]

    config: BoxSource.Config

    def __init__(
        self, config: SourceConfig, root: Path, groups: Sequence[str], values: Values, leave_out: Sequence[int] = ()
    ) -> None:
        super().__init__(config, root, groups, values, leave_out)
        self._region_of = {str(word): region for region, called in values.items() for word in called}
        where = f"annotations: {config.files}"
        if self.config.region is None and len(values) != 1:
            raise ConfigError(
                "boxes of several regions need a column that names the region", where=where, fix="add `region`"
            )
        if "{" in config.files:
            raise ConfigError("boxes of one source stand in one table", where=where, fix="list a source for each table")

    @property
    def path(self) -> Path:
        """The table."""
        return self.root / self.config.files

    @property
    def companions(self) -> list[Path]:
        """The table."""
        return [self.path]

    def list_scans(self) -> list[Scan]:
        """Every image that has a row, sorted."""
        if not self.path.is_file():
            raise DataError("no such file (a table of boxes)", where=str(self.path), fix="correct `files` or `root`")
        return [Scan(patient, time_point, ALL, (self.path,)) for patient, time_point in sorted(self._boxes)]

    def files(self, scan: Scan) -> list[Path]:
        """None of its own."""
        return []

    @cached_property
    def _boxes(self) -> dict[tuple[str, str], list[Box]]:
        """Patient and time point to the rows of that image."""
        config, boxes = self.config, {}
        names = column_names(self.path)
        wanted = [name for name in (config.patient, config.time_point, config.region, *config.columns) if name]
        for name in wanted:
            find_column(name, names, self.path)
        for frame in read_frames(self.path, list(dict.fromkeys(wanted))):
            columns = {name: frame[name].str.strip().tolist() for name in frame.columns}
            blank = [""] * len(frame)
            for patient, time_point, word, *cells in zip(
                columns[config.patient],
                columns[config.time_point] if config.time_point else blank,
                columns[config.region] if config.region else blank,
                *(columns[name] for name in config.columns),
                strict=True,
            ):
                boxes.setdefault((patient, time_point), []).append(Box(word, tuple(cells)))
        return boxes

    def read(self, scan: Scan, grids: Sequence[Grid]) -> Drawing:
        """The boxes of one image.

        Raises:
            DataError: A row is incomplete, names no region, or its box holds no voxel or reaches out of the image.
        """
        grid = only_grid(grids, self.path)
        regions = {region: np.zeros(grid.shape, dtype=bool) for region in self.values}
        for box in self._boxes[scan.patient, scan.time_point]:
            region = self._region(box.word)
            corners = self._corners(box, grid)
            if corners is not None:
                regions[region][corners] = True
        return Drawing(grid, regions)

    def _region(self, word: str) -> str:
        if self.config.region is None:
            return next(iter(self.values))
        if word not in self._region_of:
            raise DataError(f"'{word}' is no region", where=str(self.path), fix="list the word under `regions`")
        return self._region_of[word]

    def _corners(self, box: Box, grid: Grid) -> tuple[slice, ...] | None:
        """The voxels of a box, None where it holds nothing."""
        numbers = np.array([number_of(cell) for cell in box.cells])
        if np.isnan(numbers).all():
            return None
        if not np.isfinite(numbers).all():
            raise self._bad(box, "is no box: a coordinate is missing or no number", "complete the row, or empty all")
        shape = np.array(grid.shape[: len(numbers) // 2])
        if len(shape) == 2 and grid.shape[2] != 1:
            raise self._bad(box, "has two axes, but its image has three", "name three columns each")
        first, second = numbers.reshape(2, -1) * (shape if self.config.units == "relative" else 1)
        low, high = (first - second / 2, first + second / 2) if self.config.size else (first, second)
        if (low < -BEYOND * shape).any() or (high > (1 + BEYOND) * shape).any():
            size = " x ".join(map(str, shape.tolist()))
            raise self._bad(box, f"reaches out of its image of {size} voxels", "correct the row, or `units`")
        # Voxel i has its centre at i + .5.
        start, stop = np.ceil(np.clip(low, 0, shape) - 0.5), np.ceil(np.clip(high, 0, shape) - 0.5)
        if (stop <= start).any():
            raise self._bad(box, "holds no voxel", "correct the row, or `units`")
        return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))

    def _bad(self, box: Box, what: str, fix: str) -> DataError:
        given = ", ".join(f"{name} {cell}" for name, cell in zip(self.config.columns, box.cells, strict=True))
        return DataError(f"the box {given} {what}", where=str(self.path), fix=fix)
