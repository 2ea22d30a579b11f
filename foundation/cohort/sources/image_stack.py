"""PNG, TIFF and JPEG: single 2D images, and stacks of slices, one file each or the pages of one TIFF."""

import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from foundation.cohort.reading.scans import find_scans, refuse_non_finite
from foundation.cohort.sources.base import ImageSource, Scan, SourceConfig, Volume, image_sources
from foundation.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

TIFF_SUFFIXES = {".tif", ".tiff"}
GREY_MODES = {"1", "L", "I", "F"}
ORIENTATION = 274
"""Number of the tag that says how an image is to be turned, in TIFF and in the EXIF data of others."""
TURNS = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
"""What the tag's values ask for: rows and columns swapped, then the direction of rows and of columns."""
SLICE_AXES = {"Z", "Q", "I"}
"""Letters that tifffile gives to pages that are slices, or of which a file says nothing."""
DAMAGED = (OSError, ValueError, SyntaxError, RuntimeError, IndexError, KeyError, TypeError, struct.error, zlib.error)
"""What Pillow and tifffile raise on bytes that break the format."""


@image_sources.register("image_stack")
class ImageStackSource(ImageSource):
    """Slices whose files say nothing of space, so their place in the body is a convention.

    A slice is taken to be shown as radiologists show an axial one: columns run from the patient's right to left,
    rows from anterior to posterior. Slices run from inferior to superior in the order of the one number that tells
    their names apart, without gaps. A scan of one file is a 2D image, or a stack where the file is a TIFF of several
    pages. Grey values of 8, 16 or 32 bits and floats are kept as they are; a colour image whose three planes
    are equal is grey. Where a file says how it is to be turned, as cameras write it, it is turned.
    """

    class Config(SourceConfig):
        """`files` names single files: ``{patient}/{channel}.png``, or ``{patient}/{channel}/*.png`` for stacks."""

        format: Literal["image_stack"]
        spacing: tuple[float, ...] | None = Field(
            default=None, description="Millimetres between columns, rows and slices; by default 1."
        )
        rgb: bool = Field(default=False, description="Red, green and blue are the modality's three channels.")

        @field_validator("spacing")
        @classmethod
        def _is_two_or_three(cls, spacing: tuple[float, ...] | None) -> tuple[float, ...] | None:
            if spacing is not None and (len(spacing) not in (2, 3) or min(spacing) <= 0):
                raise ValueError(f"spacing needs two or three positive numbers, not {list(spacing)}")
            return spacing

    config: "ImageStackSource.Config"

    def __init__(self, config: SourceConfig, root: Path, channels: Sequence[str], groups: Sequence[str] = ()) -> None:
        super().__init__(config, root, channels, groups)
        self._read_last: tuple[tuple[Path, ...], np.ndarray] | None = None
        if self.config.rgb and (len(self.channels) != 3 or "{channel}" in self.config.files):
            raise ConfigError(
                "rgb needs three channels and a pattern without {channel}",
                where=f"files: {self.config.files}",
                fix="list the channels as [red, green, blue], or leave rgb out",
            )

    def list_scans(self) -> list[Scan]:
        """Every scan there is, its slices in order, sorted.

        Raises:
            ConfigError: A placeholder is missing.
            DataError: Nothing matches, or one scan's slices lie in two folders.
        """
        found = find_scans(
            self.config.files, self.root, ["*"] if self.config.rgb else self.channels, self.groups, self.other_channels
        )
        scans = []
        for (patient, time_point, channel), paths in found.items():
            if len({path.parent for path in paths}) > 1:
                raise DataError(
                    f"slices of channel '{channel}' of patient '{patient}' lie in two folders: also {paths[-1].parent}",
                    where=str(paths[0].parent),
                    fix="remove one, or tell them apart with {time_point} in `files`",
                )
            for name in self.channels if self.config.rgb else [channel]:
                scans.append(Scan(patient, time_point, name, tuple(sorted(paths, key=_natural))))
        return sorted(scans)

    def read(self, scan: Scan) -> Volume:
        """Read one scan: [X, Y] where it is one image, [X, Y, Z] where it is a stack.

        Raises:
            DataError: A slice is missing, damaged, in colour or of another size, or holds what is no number.
        """
        if self._read_last is None or self._read_last[0] != scan.paths:
            self._read_last = scan.paths, _read_stack(scan.paths, rgb=self.config.rgb)
        voxels = self._read_last[1]
        if self.config.rgb:
            voxels = voxels[..., self.channels.index(scan.channel)]
        spacing = [*(self.config.spacing or ()), 1.0, 1.0, 1.0][:3]
        # Columns lead to the left and rows to the back: against R and A.
        return Volume(voxels, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), placed=False)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts slice2 before slice10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], path.name


def _read_stack(paths: Sequence[Path], *, rgb: bool) -> np.ndarray:
    """[X, Y] or [X, Y, Z], and a last axis of three colours if `rgb`."""
    if len(paths) == 1:
        pages = _read_pages(paths[0], rgb=rgb)
        return pages[0].swapaxes(0, 1) if len(pages) == 1 else _stacked(pages)
    _refuse_gaps(paths)
    slices = []
    for path in paths:
        pages = _read_pages(path, rgb=rgb)
        if len(pages) > 1:
            raise DataError(
                f"has {len(pages)} pages and is one of {len(paths)} files of a scan",
                where=str(path),
                fix="let `files` match one file of several pages, or several of one",
            )
        if slices and (pages[0].shape, pages[0].dtype) != (slices[0].shape, slices[0].dtype):
            raise DataError(
                f"is {_size(pages[0])}, the first slice is {_size(slices[0])}",
                where=str(path),
                fix="keep slices of one size and type in a stack",
            )
        slices.append(pages[0])
    return _stacked(slices)


def _stacked(slices: Sequence[np.ndarray]) -> np.ndarray:
    return np.moveaxis(np.stack(slices), (0, 1, 2), (2, 1, 0))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} {image.dtype}"


def _refuse_gaps(paths: Sequence[Path]) -> None:
    """Refuse slices that are not numbered 1, 2, 3 …, from any start."""
    names = [re.split(r"(\d+)", path.stem) for path in paths]
    skeletons = {tuple(name[::2]) for name in names}
    numbers = np.array([[int(part) for part in name[1::2]] for name in names]) if len(skeletons) == 1 else None
    varying = [] if numbers is None else np.flatnonzero(np.ptp(numbers, axis=0)).tolist()
    if numbers is None or len(varying) != 1:
        raise DataError(
            f"{len(paths)} files are not told apart by one running number, such as {paths[0].name} and {paths[1].name}",
            where=str(paths[0].parent),
            fix="number the slices, or let `files` match one stack only",
        )
    running = numbers[:, varying[0]]
    for path, after, step in zip(paths, paths[1:], np.diff(running), strict=False):
        if step != 1:
            what = "missing slice between" if step > 1 else "the same number is in"
            raise DataError(
                f"{what} {path.name} and {after.name}",
                where=str(path.parent),
                fix="export the whole stack again, or number its slices without gaps",
            )


def _read_pages(path: Path, *, rgb: bool) -> list[np.ndarray]:
    """Pages of a file, each [rows, columns], or [rows, columns, 3] if `rgb`."""
    try:
        pages = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else [_read_picture(path)]
    except DAMAGED as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name)[:160]
        what, _, remedy = reason.partition("; ")
        install = "pip install imagecodecs" if "imagecodecs" in reason else remedy or "copy the file again"
        raise DataError(f"the image cannot be read: {what}", where=str(path), fix=install) from None
    for page in pages:
        refuse_non_finite(page, path)
    return [_with_colours(page, path, rgb=rgb) for page in pages]


def _with_colours(page: np.ndarray, path: Path, *, rgb: bool) -> np.ndarray:
    if rgb and page.ndim == 2:
        raise DataError("is grey, but rgb is set", where=str(path), fix="leave rgb out, or export it in colour")
    if rgb or page.ndim == 2:
        return page
    if (page == page[..., :1]).all():
        return page[..., 0]
    raise DataError(
        "is in colour",
        where=str(path),
        fix="set `rgb: true` with three channels, or export it as grey values",
    )


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        # An image beyond the limit is refused, not announced on the terminal.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return _to_array(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(str(error)) from None


def _to_array(image: "ImageFile") -> np.ndarray:
    held = int(getattr(image, "n_frames", 1))
    # The others of a camera's picture are its previews.
    if held > 1 and image.format != "MPO":
        raise ValueError(f"it holds {held} images, of which one would be read; write each into its own file")
    if any(";16" in str(tile.args) for tile in image.tile) and not image.mode.startswith("I"):
        raise ValueError("it has 16 bits a value and colours or transparency; write it as 16-bit grey values or TIFF")
    return _turned(_values(image), int(image.getexif().get(ORIENTATION) or 1))


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array [rows, columns, …] as its orientation tag wants it shown."""
    swapped, down, across = TURNS.get(orientation, (False, 1, 1))
    return (array.swapaxes(0, 1) if swapped else array)[::down, ::across]


def _values(image: "Image") -> np.ndarray:
    if image.mode in GREY_MODES or image.mode.startswith("I;16"):
        array = np.asarray(image)
        array = array.astype(np.uint8) if image.mode == "1" else array
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.asarray(image.convert("RGB"))


def _read_tiff(path: Path) -> list[np.ndarray]:
    from tifffile import PHOTOMETRIC, TiffFile, TiffFileError

    try:
        with TiffFile(path) as tiff:
            if len(tiff.series) != 1:
                raise ValueError(f"its pages form {len(tiff.series)} images of different sizes; keep one in the file")
            series = tiff.series[0]
            photometric = series.keyframe.photometric
            if photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
                raise ValueError(
                    f"its values mean {PHOTOMETRIC(photometric).name}; write it as grey (MINISBLACK) or RGB"
                )
            axes, array = series.axes, series.asarray()
            tag = series.keyframe.tags.get(ORIENTATION)
            orientation = 1 if tag is None else int(tag.value)
    except TiffFileError as error:
        raise ValueError(str(error)) from None
    if axes.endswith("YXS"):
        array = array[..., :3]
    elif axes.endswith("SYX"):
        array = np.moveaxis(array, -3, -1)[..., :3]
    elif not axes.endswith("YX"):
        raise ValueError(f"its axes {axes} are not understood; write it as slices of grey values")
    colours = 1 if "S" in axes else 0
    lead = array.ndim - 2 - colours
    if lead == 1 and axes[0] not in SLICE_AXES:
        raise ValueError(f"its pages are no slices (axes {axes}); write each channel or time point into its own file")
    if lead > 1 or (colours and array.shape[-1] != 3):
        raise ValueError(f"its axes {axes} are not understood; write it as slices of grey values")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return [_turned(page, orientation) for page in (array if lead else [array])]
