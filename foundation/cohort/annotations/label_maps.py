"""Masks whose voxels hold label values: NIfTI and image files, one for all regions or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from foundation.cohort.annotations.base import (
    ALL,
    AnnotationSource,
    Drawing,
    Grid,
    Values,
    annotation_sources,
    same_grid,
)
from foundation.cohort.sources.base import ImageSource, Scan, SourceConfig
from foundation.cohort.sources.image_stack import ImageStackSource
from foundation.cohort.sources.nifti import NiftiSource
from foundation.errors import ConfigError, DataError
from foundation.wording import listed

MOST_NAMED = 5
"""Label values that a message names."""


class LabelMapSource(AnnotationSource):
    """Masks in a format that images have too, read as these are.

    Where `files` has ``{region}``, each region has a file of its own, named by its words, in which any voxel that is
    not 0 belongs to it. Otherwise one file has them all, told apart by label values.
    """

    images: ClassVar[type[ImageSource]]

    def __init__(
        self, config: SourceConfig, root: Path, groups: Sequence[str], values: Values, leave_out: Sequence[int] = ()
    ) -> None:
        super().__init__(config, root, groups, values, leave_out)
        if "{channel}" in config.files:
            raise _refused(config, "a mask has regions, and no {channel}", "write {region}, or name the mask itself")
        self.apart = "{region}" in config.files
        if self.apart:
            words = [str(word) for called in values.values() for word in called]
            self._region_of = {str(word): region for region, called in values.items() for word in called}
            if len(words) > len(values):
                raise _refused(config, "each region has a file of its own, but one has several words", "list one word")
        elif any(not isinstance(value, int) for called in values.values() for value in called):
            fix = "write them as {name: value}, or put {region} into `files`"
            raise _refused(config, "one file holds all regions, but a region is called by a word", fix)
        reader = config.model_copy(update={"files": config.files.replace("{region}", "{channel}")})
        self._images = self.images(reader, root, list(self._region_of) if self.apart else [ALL], groups)
        self.remarks = self._images.remarks
        self.other_channels = self._images.other_channels

    def list_scans(self) -> list[Scan]:
        """Every mask there is, sorted."""
        scans = self._images.list_scans()
        if not self.apart:
            return scans
        return [Scan(s.patient, s.time_point, self._region_of[s.channel], s.paths, note=s.channel) for s in scans]

    def files(self, scan: Scan) -> list[Path]:
        """The file of a mask, or those of its slices."""
        return self._images.files(scan)

    def read(self, scan: Scan, grids: Sequence[Grid]) -> Drawing:
        """Read one mask.

        Raises:
            DataError: It is damaged, lies on another grid, or holds a value that no region has.
        """
        called = Scan(scan.patient, scan.time_point, scan.note or scan.channel, scan.paths)
        volume = self._images.read(called)
        assert volume is not None, "of these formats, a file that is there holds its image"
        grid = same_grid(volume, grids, scan.paths[0])
        labels = volume.voxels.reshape(grid.shape)
        if self.apart:
            self._refuse_others(labels, None, scan.paths[0])
            return Drawing(grid, {scan.channel: ~np.isin(labels, [0, *self.leave_out])})
        self._refuse_others(labels, {v for called in self.values.values() for v in called}, scan.paths[0])
        return Drawing(grid, {region: np.isin(labels, called) for region, called in self.values.items()})

    def _refuse_others(self, labels: np.ndarray, known: set[int | str] | None, path: Path) -> None:
        """Refuse values that no region has; where `known` is None, any single value beside 0 is the region."""
        found = np.unique(labels).tolist()
        inside = [value for value in found if value != 0 and value not in self.leave_out]
        others = inside[1:] if known is None else [value for value in inside if value not in known]
        if not others:
            return
        shown = listed([f"{value:g}" for value in others[:MOST_NAMED]]) + (" and more" * (len(others) > MOST_NAMED))
        what = f"holds {shown} beside {inside[0]:g}" if known is None else f"holds {shown}, which no region has"
        fix = "list them under `regions`, or under `leave_out` where they are no region; fractions are no labels"
        raise DataError(what, where=str(path), fix=fix)


def _refused(config: SourceConfig, what: str, fix: str) -> ConfigError:
    return ConfigError(what, where=f"annotations: {config.files}", fix=fix)


class MaskNifti(SourceConfig):
    """`files` names one mask per scan: ``{patient}/mask.nii.gz``, or ``{patient}/{region}.nii.gz`` for each region."""

    format: Literal["nifti"]


class MaskImageStack(ImageStackSource.Config):
    """`files` names one mask per image: ``masks/{patient}.png``, or ``{patient}/{region}/*.png`` for stacks."""


@annotation_sources.register("nifti")
class NiftiMasks(LabelMapSource):
    """Masks in NIfTI."""

    images = NiftiSource
    Config = MaskNifti


@annotation_sources.register("image_stack")
class ImageStackMasks(LabelMapSource):
    """Masks in PNG or TIFF, for images in such formats."""

    images = ImageStackSource
    Config = MaskImageStack
