"""Volumes of one image into the cohort's form: orientation, spacing, foreground, size, intensity bounds, type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foundation.cohort.sources.base import Volume
from foundation.cohort.spec import ImageRecipe
from foundation.errors import DataError, nearest
from foundation.modality import Window

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

AXES = ("x", "y", "z")
SAME_SPACING = 1e-4
"""Relative difference of spacing below which there is nothing to resample: headers keep six or seven digits."""
SAME_PLACE = 0.01
"""Distance, in voxels, below which two grids are one."""
LARGEST_SKEW = 0.25
"""Voxels that the far end of one axis may lie off a right angle to another: positions are rounded."""
SHEARED = "scans with axes at no right angles, as of a tilted gantry: resampled to a right-angled grid"
FEWEST_LEVELS = 10
"""Rounding fractions to fewer whole numbers than this is taken for a wrong `stored_as`."""


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
        remarks: What was done that a user should know.
    """

    voxels: np.ndarray
    channels_present: np.ndarray
    statistics: np.ndarray
    affine: np.ndarray | None
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
    image, world, remarks = _on_one_grid({name: volumes[name] for name in present}, modality)
    if modality.crop_foreground:
        image = _crop_foreground(image, modality.foreground_above)
    image = _stretch(image, modality)
    image = _crop_centre(image, modality.size)
    stored = _stored(image, present, modality, world)
    stored.remarks = remarks
    return stored


def _on_one_grid(
    volumes: dict[str, Volume], modality: ImageRecipe
) -> tuple[MetaTensor, np.ndarray | None, tuple[str, ...]]:
    """[P, *shape]: the present channels at the stated orientation and spacing; [4, 4] to the world; and remarks."""
    import torch
    from monai.data.meta_tensor import MetaTensor

    flat = len(modality.size) == 2
    images = {name: _oriented(_load(name, volume, modality), modality) for name, volume in volumes.items()}
    remarks = ()
    if not flat and modality.spacing != "untrue":
        right = {name: _right_angled(image, modality) for name, image in images.items()}
        remarks = (SHEARED,) if any(right[name] is not images[name] for name in images) else ()
        images = right
    leader = next(iter(images))
    apart = [name for name, image in images.items() if not _same_grid(image, images[leader])]
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
    placed = [
        _matched(image, target, modality) if name in apart else _spaced(image, modality)
        for name, image in images.items()
    ]
    return MetaTensor(torch.cat([image.as_tensor() for image in placed]), affine=target.affine), world, remarks


def _to_world(image: MetaTensor, volume: Volume, modality: ImageRecipe) -> np.ndarray | None:
    """[4, 4] from the millimetres of an oriented image, or of its plane once flattened, to those of the world."""
    if not volume.placed or modality.spacing == "untrue":
        return None
    if len(modality.size) == 3:
        return np.eye(4)
    affine, across = image.affine.numpy(), _across(volume, modality)
    kept = [axis for axis in range(3) if axis != across]
    plane = affine[:, [*kept, across, 3]]
    plane[:, :2] /= _zooms(affine)[kept]
    return plane


def _load(name: str, volume: Volume, modality: ImageRecipe) -> MetaTensor:
    """[1, X, Y, Z], of a type that torch computes with and that keeps all that can be stored later."""
    import torch
    from monai.data.meta_tensor import MetaTensor

    flat = len(modality.size) == 2
    voxels = volume.voxels[:, :, None] if flat and volume.voxels.ndim == 2 else volume.voxels
    if voxels.ndim != 3 or (flat and voxels.shape[2] != 1):
        raise DataError(
            f"channel '{name}' is {' x '.join(map(str, volume.voxels.shape))}, but `size` is {list(modality.size)}",
            fix="give `size` two numbers for 2D images and three for volumes",
        )
    kept = voxels.dtype in (np.uint8, np.int16)
    with np.errstate(over="ignore"):
        copied = np.array(voxels, dtype=voxels.dtype if kept else np.float32, order="C")
    if not kept and not np.isfinite(copied).all():
        raise DataError(f"channel '{name}' holds values beyond the range of float32", fix="rescale the scan")
    affine = np.array(volume.affine, dtype=np.float64)
    return MetaTensor(torch.from_numpy(copied)[None], affine=torch.from_numpy(affine))


def _rounded(affine: np.ndarray) -> np.ndarray:
    """The affine to six digits: the same header in binary and in decimal text becomes the same grid to the bit."""
    tens = np.floor(np.log10(_zooms(affine) * 1.001))
    scale = 10.0 ** -np.append(tens - 5, tens.min() - 2)
    rounded = np.array(affine, dtype=np.float64)
    rounded[:3] = np.rint(rounded[:3] * scale) / scale
    return rounded


def _zooms(affine: np.ndarray) -> np.ndarray:
    """Millimetres per voxel along each axis."""
    return np.linalg.norm(np.asarray(affine)[:-1, :-1], axis=0)


def _oriented(image: MetaTensor, modality: ImageRecipe) -> MetaTensor:
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import Orientation
    from nibabel.orientations import aff2axcodes

    turned = image
    if modality.orientation == "RAS" and aff2axcodes(image.affine.numpy()) != ("R", "A", "S"):
        turned = Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(image)
    affine = _rounded(turned.affine.numpy())  # type: ignore[union-attr]
    return MetaTensor(turned.as_tensor(), affine=torch.from_numpy(affine))  # type: ignore[union-attr]


def _right_angled(image: MetaTensor, modality: ImageRecipe) -> MetaTensor:
    """The image itself where its axes are at right angles, else interpolated on a grid that holds all of it.

    The two axes that are closest to a right angle, those of a slice, stay; the third is turned upright.
    """
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import ResampleToMatch

    affine, sizes = image.affine.numpy(), np.array(image.shape[1:])
    zooms = _zooms(affine)
    units = affine[:3, :3] / zooms
    cosines = np.abs(units.T @ units - np.eye(3))
    skew = cosines * zooms[:, None] * (sizes[:, None] - 1) / zooms
    if skew.max() <= LARGEST_SKEW:
        return image
    first, second = min(((0, 1), (0, 2), (1, 2)), key=lambda pair: cosines[pair])
    order = [first, second, 3 - first - second]
    turned, triangle = np.linalg.qr(affine[:3, order])
    axes, spacing = np.empty((3, 3)), np.empty(3)
    axes[:, order], spacing[order] = turned * np.sign(np.diag(triangle)), np.abs(np.diag(triangle))
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (sizes - 1)
    along = (corners @ affine[:3, :3].T) @ axes / spacing
    low = np.floor(along.min(axis=0) + SAME_PLACE)
    target = np.eye(4)
    target[:3, :3] = axes * spacing
    target[:3, 3] = affine[:3, 3] + target[:3, :3] @ low
    shape = (np.ceil(along.max(axis=0) - SAME_PLACE) - low).astype(int) + 1
    grid = MetaTensor(torch.empty(1, *shape.tolist()), affine=torch.from_numpy(_rounded(target)))
    outside = float(image.min()) if modality.background is None else modality.background
    above = MetaTensor(image.as_tensor().to(torch.float32) - outside, affine=image.affine)
    moved = ResampleToMatch(mode="bilinear", padding_mode="zeros")(above, img_dst=grid)
    return MetaTensor(moved.as_tensor() + outside, affine=grid.affine)  # type: ignore[union-attr]


def _same_grid(one: MetaTensor, other: MetaTensor) -> bool:
    if one.shape != other.shape:
        return False
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]).T
    corners[:3] *= np.array(one.shape[1:])[:, None]
    moved = np.linalg.solve(other.affine.numpy(), one.affine.numpy() @ corners)
    return bool(np.abs(moved - corners).max() < SAME_PLACE)


def _describe_grid(image: MetaTensor) -> str:
    spacing = " x ".join(f"{zoom:g}" for zoom in _zooms(image.affine.numpy()))
    corner = ", ".join(f"{place:g}" for place in image.affine[:3, 3].tolist())
    return f"{' x '.join(map(str, image.shape[1:]))} voxels of {spacing} mm from ({corner})"


def _flattened(image: MetaTensor, volume: Volume, modality: ImageRecipe) -> MetaTensor:
    """[1, X, Y] from an oriented image of one slice; of its place, only the spacing in its plane is kept."""
    import torch
    from monai.data.meta_tensor import MetaTensor

    across = _across(volume, modality)
    zooms = np.delete(_zooms(image.affine.numpy()), across)
    return MetaTensor(image.as_tensor().squeeze(across + 1), affine=torch.from_numpy(np.diag([*zooms, 1.0])))


def _across(volume: Volume, modality: ImageRecipe) -> int:
    """The axis of an oriented image of one slice that leads out of its plane."""
    from nibabel.orientations import io_orientation

    return 2 if modality.orientation == "native" else int(io_orientation(volume.affine)[2, 0])


def _spaced(image: MetaTensor, modality: ImageRecipe) -> MetaTensor:
    """The image at the stated spacing, interpolated linearly; itself where there is nothing to change."""
    from monai.transforms.spatial.array import Spacing

    if isinstance(modality.spacing, str):
        return image
    zooms = _zooms(image.affine.numpy())
    if np.allclose(zooms, modality.spacing, rtol=SAME_SPACING, atol=0):
        return image
    smooth = _smoothed(image, np.array(modality.spacing) / zooms)
    return Spacing(pixdim=modality.spacing, mode="bilinear", padding_mode="border")(smooth)  # type: ignore[return-value]


def _matched(image: MetaTensor, target: MetaTensor, modality: ImageRecipe) -> MetaTensor:
    """The image on the grid of `target`; what it does not cover is background."""
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import ResampleToMatch

    steps = np.linalg.norm(np.linalg.solve(image.affine.numpy(), target.affine.numpy())[:3, :3], axis=1)
    outside = float(image.min()) if modality.background is None else modality.background
    above = MetaTensor(_smoothed(image, steps).as_tensor() - outside, affine=image.affine)
    moved = ResampleToMatch(mode="bilinear", padding_mode="zeros")(above, img_dst=target)
    return MetaTensor(moved.as_tensor() + outside, affine=target.affine)  # type: ignore[union-attr]


def _smoothed(image: MetaTensor, steps: Sequence[float] | np.ndarray) -> MetaTensor:
    """The image as float32, without what is too fine for samples that are `steps` of its voxels apart."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from scipy.ndimage import gaussian_filter

    voxels = image.as_tensor().numpy().astype(np.float32)
    widths = np.maximum((np.asarray(steps) - 1) / 2, 0)
    widths[widths < SAME_PLACE] = 0
    if widths.any():
        # Not MONAI's filter: it takes what lies beyond the edge for zero, which darkens edges and brightens air in CT.
        voxels = gaussian_filter(voxels, sigma=(0, *widths), mode="nearest")
    return MetaTensor(torch.from_numpy(voxels), affine=image.affine)


def _crop_foreground(image: MetaTensor, above: float) -> MetaTensor:
    """The smallest box that holds every channel's foreground."""
    from monai.transforms.croppad.array import CropForeground

    if not bool((image.as_tensor() > above).any()):
        raise DataError(
            f"empty image: no voxel is above {above:g}", fix="correct `foreground_above`, or leave the scan out"
        )
    return CropForeground(select_fn=lambda voxels: voxels > above, allow_smaller=True)(image)  # type: ignore[return-value]


def _stretch(image: MetaTensor, modality: ImageRecipe) -> MetaTensor:
    """The image with the stated axes resampled to the cohort's size."""
    from monai.transforms.spatial.array import Resize

    shape = list(image.shape[1:])
    wanted = [
        size if axis in modality.stretch else old for axis, size, old in zip(AXES, modality.size, shape, strict=False)
    ]
    if wanted == shape:
        return image
    smooth = _smoothed(image, np.array(shape) / np.array(wanted))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return Resize(spatial_size=wanted, mode=mode, align_corners=False)(smooth)  # type: ignore[return-value]


def _crop_centre(image: MetaTensor, size: Sequence[int]) -> MetaTensor:
    from monai.transforms.croppad.array import CenterSpatialCrop

    kept = [min(pair) for pair in zip(size, image.shape[1:], strict=True)]
    return image if kept == list(image.shape[1:]) else CenterSpatialCrop(roi_size=kept)(image)  # type: ignore[return-value]


def _stored(
    image: MetaTensor, present: Sequence[str], modality: ImageRecipe, world: np.ndarray | None
) -> StandardImage:
    """Typed, measured, padded to size, and laid out with the absent channels."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.croppad.array import SpatialPad

    count = len(modality.channels)
    voxels = np.zeros((count, *modality.size), dtype=modality.stored_as)
    statistics = np.full((count, 4), np.nan, dtype=np.float32)
    affine = image.affine
    for name, channel in zip(present, image.as_tensor().numpy(), strict=True):
        place = modality.channels.index(name)
        typed = _typed(channel, name, modality.stored_as)
        statistics[place] = _measure(typed, modality)
        ground = typed.min() if modality.background is None else _typed_background(modality)
        pad = SpatialPad(spatial_size=modality.size, mode="constant", value=ground.item())
        padded = pad(MetaTensor(torch.from_numpy(typed)[None], affine=image.affine))
        voxels[place], affine = padded[0].numpy(), padded.affine  # type: ignore[union-attr]
    present_C = np.array([name in present for name in modality.channels])
    placed = None if world is None else world @ _to_4x4(affine.numpy())
    return StandardImage(voxels, present_C, statistics, placed)


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
    if whole is not values and low < high < low + FEWEST_LEVELS and (whole != values).any():
        raise DataError(
            f"channel '{name}' holds fractions from {low:g} to {high:g}; {stored_as} would lose most of it",
            fix="choose float32 or float16 for `stored_as`",
        )
    return np.ascontiguousarray(whole.astype(dtype, copy=False))


def _typed_background(modality: ImageRecipe) -> np.ndarray:
    return _typed(np.array([modality.background], dtype=np.float64), "background", modality.stored_as)[0]


def _measure(values: np.ndarray, modality: ImageRecipe) -> tuple[float, float, float, float]:
    """(low, high, mean, std) of one channel before it is padded."""
    if values.dtype.kind != "f":
        return _measure_whole(values, modality)
    inside = values[values > modality.foreground_above]
    inside = inside if inside.size else values.ravel()
    rule = modality.intensity
    if isinstance(rule, Window):
        low, high = rule.low, rule.high
    else:
        low, high = (
            float(bound) for bound in np.percentile(inside.astype(np.float32, copy=False), [rule.low, rule.high])
        )
    clipped = np.clip(inside, low, high, dtype=np.float64)
    return low, high, float(clipped.mean()), float(clipped.std())


def _measure_whole(values: np.ndarray, modality: ImageRecipe) -> tuple[float, float, float, float]:
    """As `_measure`, of whole numbers: from their counts, which is many times faster than from themselves."""
    lowest = int(values.min())
    counts = np.bincount(values.ravel().astype(np.intp) - lowest)
    levels = np.arange(lowest, lowest + len(counts))
    inside = levels > modality.foreground_above
    if counts[inside].any():
        levels, counts = levels[inside], counts[inside]
    rule = modality.intensity
    if isinstance(rule, Window):
        low, high = rule.low, rule.high
    else:
        low, high = (_percentile_of_counts(levels, counts, percent) for percent in (rule.low, rule.high))
    clipped = np.clip(levels, low, high, dtype=np.float64)
    mean = float(np.average(clipped, weights=counts))
    return low, high, mean, float(np.sqrt(np.average((clipped - mean) ** 2, weights=counts)))


def _percentile_of_counts(levels: np.ndarray, counts: np.ndarray, percent: float) -> float:
    """The percentile of each level taken as often as counted, linear between neighbours in rank."""
    up_to = np.cumsum(counts)
    rank = percent / 100 * (up_to[-1] - 1)
    below, above = levels[np.searchsorted(up_to, [np.floor(rank), np.ceil(rank)], side="right")]
    return float(below + (above - below) * (rank - np.floor(rank)))


def _to_4x4(affine: np.ndarray) -> np.ndarray:
    if len(affine) == 4:
        return affine
    wide = np.eye(4)
    wide[:2, :2], wide[:2, 3] = affine[:2, :2], affine[:2, 2]
    return wide
