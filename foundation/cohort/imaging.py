"""Volumes of one image into the cohort's form: orientation, spacing, foreground, size, type, order in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foundation.cohort.intensity import measure
from foundation.cohort.resampling import (
    is_same_grid,
    moved,
    smoothed,
    to_grid,
    to_shape,
    to_spacing,
    upright_grid,
    zooms,
)
from foundation.cohort.sources.base import Volume
from foundation.cohort.spec import ImageRecipe
from foundation.errors import DataError, nearest

AXES = ("x", "y", "z")
SHEARED = "scans with axes at no right angles, as of a tilted gantry: resampled to a right-angled grid"
FEWEST_LEVELS = 10
"""Rounding fractions to fewer whole numbers than this is taken for a wrong `stored_as`."""
NO_FRACTION = 1e-3
"""Distance from a whole number that resampling in single precision leaves of one."""


@dataclass(frozen=True)
class Placed:
    """One channel on its way: voxels [X, Y, Z] or [X, Y], in any order in memory, and the affine of their axes."""

    voxels: np.ndarray
    affine: np.ndarray

    @property
    def grid(self) -> tuple[np.ndarray, tuple[int, ...]]:
        """Affine and shape."""
        return self.affine, self.voxels.shape

    def part(self, start: Sequence[int], shape: Sequence[int]) -> Placed:
        """A box of it."""
        box = tuple(slice(low, low + size) for low, size in zip(start, shape, strict=True))
        return Placed(self.voxels[box], moved(self.affine, np.array(start)))


@dataclass
class StandardImage:
    """One image as a cohort stores it.

    Attributes:
        voxels: [C, X, Y, Z] or [C, X, Y], physical values in the stored type; zeros in an absent channel.
        channels_present: [C] bool.
        statistics: [C, 4] float32, (low, high, mean, std): the intensity rule's bounds, then mean and deviation
            between them, over the foreground or, where there is none, over all that is no padding; NaN where absent.
        affine: [4, 4] float64, voxel indices (i, j, k) to millimetres of the scan's world (RAS+), of the grid that all
            channels share: that of the first one present, in the modality's order. A 2D image has the indices
            (i, j, 0); k leads across its plane. None where the file of that channel says no place, and where
            `spacing: untrue` distrusts what it says.
        grid: [4, 4] float64, the same affine wherever the file says that voxels lie, true or not: what turns, resamples
            and crops a drawing on the source as its image.
        inside: The part of the axes of a channel that is no padding.
        remarks: What was done that a user should know.
    """

    voxels: np.ndarray
    channels_present: np.ndarray
    statistics: np.ndarray
    affine: np.ndarray | None
    grid: np.ndarray
    inside: tuple[slice, ...]
    remarks: tuple[str, ...] = ()


def standardise(volumes: dict[str, Volume], modality: ImageRecipe) -> StandardImage:
    """Bring the channels of one image onto one grid of the modality's size; a pure function, the same to the bit.

    Where nothing has to be resampled, values are those of the source.

    Args:
        volumes: Channel to scan, at least one.
        modality: What the cohort's YAML says of the image.

    Raises:
        DataError: The scans do not fit the modality: dimensions, grids, no foreground, values beyond `stored_as`.
    """
    for name in volumes:
        if name not in modality.channels:
            raise DataError(f"'{name}' is no channel of the modality", fix=nearest(name, modality.channels))
    present = [name for name in modality.channels if name in volumes]
    images, world, remarks = _on_one_grid({name: volumes[name] for name in present}, modality)
    trusted = volumes[present[0]].placed and modality.spacing != "untrue"
    if modality.crop_foreground:
        images = _crop_foreground(images, modality.foreground_above)
    images = {name: _stretch(image, modality) for name, image in images.items()}
    images = {name: _crop_centre(image, modality.size) for name, image in images.items()}
    return _stored(images, modality, world, trusted, remarks)


def _on_one_grid(
    volumes: dict[str, Volume], modality: ImageRecipe
) -> tuple[dict[str, Placed], np.ndarray, tuple[str, ...]]:
    """The present channels at the stated orientation and spacing; [4, 4] to the world; and remarks."""
    flat = len(modality.size) == 2
    images = {name: _oriented(_load(name, volume, modality), modality) for name, volume in volumes.items()}
    remarks = ()
    if not flat and modality.spacing != "untrue":
        right = {name: _right_angled(image, modality) for name, image in images.items()}
        remarks = (SHEARED,) if any(right[name] is not images[name] for name in images) else ()
        images = right
    leader = next(iter(images))
    apart = [name for name, image in images.items() if not is_same_grid(image.grid, images[leader].grid)]
    if apart and (flat or modality.spacing == "untrue"):
        raise DataError(
            f"channels '{leader}' and '{apart[0]}' lie on different grids: "
            f"{_describe_grid(images[leader])} and {_describe_grid(images[apart[0]])}",
            fix="write them on one grid" + ("" if flat else ", or state a true `spacing`"),
        )
    world = _to_world(images[leader], volumes[leader], modality)
    if flat:
        images = {name: _flattened(image, volumes[name], modality) for name, image in images.items()}
    target = _spaced(images[leader], modality)
    placed = {
        name: _matched(image, target, modality)
        if name in apart
        else _spaced(replace(images[leader], voxels=image.voxels), modality)
        for name, image in images.items()
    }
    return placed, world, remarks


def _to_world(image: Placed, volume: Volume, modality: ImageRecipe) -> np.ndarray:
    """[4, 4] from the millimetres of an oriented image, or of its plane once flattened, to those of the file."""
    if len(modality.size) == 3:
        return np.eye(4)
    across = _across(volume, modality)
    kept = [axis for axis in range(3) if axis != across]
    plane = image.affine[:, [*kept, across, 3]]
    plane[:, :2] /= zooms(image.affine)[kept]
    return plane


def _load(name: str, volume: Volume, modality: ImageRecipe) -> Placed:
    """[X, Y, Z], of a type that keeps all that can be stored later."""
    flat = len(modality.size) == 2
    voxels = volume.voxels[:, :, None] if flat and volume.voxels.ndim == 2 else volume.voxels
    if voxels.ndim != 3 or (flat and voxels.shape[2] != 1):
        raise DataError(
            f"channel '{name}' is {' x '.join(map(str, volume.voxels.shape))}, but `size` is {list(modality.size)}",
            fix="give `size` two numbers for 2D images and three for volumes",
        )
    kept = voxels.dtype in (np.uint8, np.int16)
    with np.errstate(over="ignore"):
        loaded = voxels if kept else voxels.astype(np.float32, copy=False)
    if not kept and not np.isfinite(loaded).all():
        raise DataError(f"channel '{name}' holds values beyond the range of float32", fix="rescale the scan")
    return Placed(loaded, np.array(volume.affine, dtype=np.float64))


def _rounded(affine: np.ndarray) -> np.ndarray:
    """The affine to six digits: the same header in binary and in decimal text becomes the same grid to the bit."""
    tens = np.floor(np.log10(zooms(affine) * 1.001))
    scale = 10.0 ** -np.append(tens - 5, tens.min() - 2)
    rounded = np.array(affine, dtype=np.float64)
    rounded[:3] = np.rint(rounded[:3] * scale) / scale
    return rounded


def _oriented(image: Placed, modality: ImageRecipe) -> Placed:
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    if modality.orientation == "native":
        return Placed(image.voxels, _rounded(image.affine))
    axes = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(axes, image.voxels.shape)
    return Placed(apply_orientation(image.voxels, axes), _rounded(affine))


def _right_angled(image: Placed, modality: ImageRecipe) -> Placed:
    """The image itself where its axes are at right angles, else interpolated on a grid that holds all of it."""
    upright = upright_grid(*image.grid)
    if upright is None:
        return image
    target, shape = _rounded(upright[0]), upright[1]
    return Placed(to_grid(image.voxels, image.affine, target, shape, _outside(image, modality)), target)


def _describe_grid(image: Placed) -> str:
    spacing = " x ".join(f"{zoom:g}" for zoom in zooms(image.affine))
    corner = ", ".join(f"{place:g}" for place in image.affine[:3, 3].tolist())
    return f"{' x '.join(map(str, image.voxels.shape))} voxels of {spacing} mm from ({corner})"


def _flattened(image: Placed, volume: Volume, modality: ImageRecipe) -> Placed:
    """[X, Y] from an oriented image of one slice; of its place, only the spacing in its plane is kept."""
    across = _across(volume, modality)
    return Placed(image.voxels.squeeze(across), np.diag([*np.delete(zooms(image.affine), across), 1.0]))


def _across(volume: Volume, modality: ImageRecipe) -> int:
    """The axis of an oriented image of one slice that leads out of its plane."""
    from nibabel.orientations import io_orientation

    return 2 if modality.orientation == "native" else int(io_orientation(volume.affine)[2, 0])


def _spaced(image: Placed, modality: ImageRecipe) -> Placed:
    """The image at the stated spacing; itself where there is nothing to change."""
    if isinstance(modality.spacing, str):
        return image
    return Placed(*to_spacing(image.voxels, image.affine, np.array(modality.spacing)))


def _matched(image: Placed, target: Placed, modality: ImageRecipe) -> Placed:
    """The image on the grid of `target`; what it does not cover is background."""
    outside, smooth = _outside(image, modality), smoothed(image.voxels, image.affine, target.affine)
    return Placed(to_grid(smooth, image.affine, target.affine, target.voxels.shape, outside), target.affine)


def _outside(image: Placed, modality: ImageRecipe) -> float:
    return float(image.voxels.min()) if modality.background is None else modality.background


def _crop_foreground(images: dict[str, Placed], above: float) -> dict[str, Placed]:
    """The smallest box that holds every channel's foreground."""
    foreground = np.logical_or.reduce([image.voxels > above for image in images.values()])
    if not foreground.any():
        raise DataError(
            f"empty image: no voxel is above {above:g}", fix="correct `foreground_above`, or leave the scan out"
        )
    axes = range(foreground.ndim)
    inside = [np.flatnonzero(foreground.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    start, shape = [int(at[0]) for at in inside], [int(at[-1] - at[0] + 1) for at in inside]
    return {name: image.part(start, shape) for name, image in images.items()}


def _stretch(image: Placed, modality: ImageRecipe) -> Placed:
    """The image with the stated axes resampled to the cohort's size."""
    shape = image.voxels.shape
    wanted = tuple(
        size if axis in modality.stretch else old for axis, size, old in zip(AXES, modality.size, shape, strict=False)
    )
    return image if wanted == shape else Placed(*to_shape(image.voxels, image.affine, wanted))


def _crop_centre(image: Placed, size: Sequence[int]) -> Placed:
    shape = image.voxels.shape
    kept = [min(pair) for pair in zip(size, shape, strict=True)]
    return image.part([old // 2 - new // 2 for old, new in zip(shape, kept, strict=True)], kept)


def _stored(
    images: dict[str, Placed], modality: ImageRecipe, world: np.ndarray, trusted: bool, remarks: tuple[str, ...]
) -> StandardImage:
    """Typed, measured, padded to size, and laid out with the absent channels."""
    count, first = len(modality.channels), next(iter(images.values()))
    voxels = np.zeros((count, *modality.size), dtype=modality.stored_as)
    statistics = np.full((count, 4), np.nan, dtype=np.float32)
    before = [(size - old) // 2 for size, old in zip(modality.size, first.voxels.shape, strict=True)]
    inside = tuple(slice(low, low + old) for low, old in zip(before, first.voxels.shape, strict=True))
    for name, image in images.items():
        place = modality.channels.index(name)
        typed = _typed(image.voxels, name, modality.stored_as)
        if typed.shape != modality.size:
            voxels[place] = typed.min() if modality.background is None else _typed_background(modality)
        _copy(typed, voxels[place][inside])
        statistics[place] = measure(typed, modality.intensity, modality.foreground_above)
    present_C = np.array([name in images for name in modality.channels])
    grid = world @ _to_4x4(moved(first.affine, -np.array(before)))
    return StandardImage(voxels, present_C, statistics, grid if trusted else None, grid, inside, remarks)


def _copy(values: np.ndarray, out: np.ndarray) -> None:
    """Copy into another order in memory.

    By way of rows one element longer: strides of a power of two, which images have, fall on the same lines of the
    processor's cache, and the copy takes three times as long.
    """
    order = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
    laid = values.transpose(order)
    apart = np.empty((*laid.shape[:-1], laid.shape[-1] + 1), values.dtype)[..., :-1]
    apart[...] = laid
    out[...] = apart.transpose(np.argsort(order))


def _typed(values: np.ndarray, name: str, stored_as: str) -> np.ndarray:
    """The values in the stored type, rounded where that is whole numbers; refuses what does not fit."""
    dtype = np.dtype(stored_as)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    whole = np.rint(values) if dtype.kind in "iu" and values.dtype.kind == "f" else values
    low, high = values.min(), values.max()
    if whole.min() < limits.min or whole.max() > limits.max:
        raise DataError(
            f"channel '{name}' holds {low:g} to {high:g}, but {stored_as} goes from {limits.min:g} to {limits.max:g}",
            fix="choose another `stored_as`, such as float32",
        )
    if whole is not values and low < high < low + FEWEST_LEVELS and np.abs(whole - values).max() > NO_FRACTION:
        raise DataError(
            f"channel '{name}' holds fractions from {low:g} to {high:g}; {stored_as} would lose most of it",
            fix="choose float32 or float16 for `stored_as`",
        )
    return whole.astype(dtype, copy=False)


def _typed_background(modality: ImageRecipe) -> np.ndarray:
    return _typed(np.array([modality.background], dtype=np.float64), "background", modality.stored_as)[0]


def _to_4x4(affine: np.ndarray) -> np.ndarray:
    if len(affine) == 4:
        return affine
    wide = np.eye(4)
    wide[:2, :2], wide[:2, 3] = affine[:2, :2], affine[:2, 2]
    return wide
