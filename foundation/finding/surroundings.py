"""What surrounds each voxel of an image: intensities at several scales, texture, the mirrored side, the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FOREGROUND = 0.05
"""Of the range of intensities, above which a voxel is tissue."""

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of Gaussian means, in voxels of the finest axis."""

TEXTURE = 3.0
"""Standard deviation of the window in which the spread of intensities is taken."""

TINY = 1e-6


@dataclass(frozen=True)
class Surroundings:
    """What surrounds the tissue voxels of one image.

    Attributes:
        tissue_XYZ: Bool, the V voxels that are tissue.
        x_VF: float32, F numbers of each, in C order; 0 of channels that were not acquired.
    """

    tissue_XYZ: np.ndarray
    x_VF: np.ndarray


def count(channels: int, axes: int, mirror: Sequence[int]) -> int:
    """F."""
    return channels * (len(SCALES) + 4 + len(mirror)) + axes + 1


def surroundings(
    x_CXYZ: np.ndarray, acquired_C: np.ndarray, width: Sequence[float], mirror: Sequence[int]
) -> Surroundings:
    """What surrounds each tissue voxel.

    Args:
        x_CXYZ: Intensities from 0 to 1, float32.
        acquired_C: Bool; at least one.
        width: Voxels of each axis that are as long as one of the finest axis, at most 1.
        mirror: Axes along which the two sides of the body are alike.
    """
    tissue = _tissue(x_CXYZ[acquired_C])
    inside = tissue.astype(np.float32)
    middle = np.argwhere(tissue).mean(axis=0).tolist() if tissue.any() else [0.0] * tissue.ndim
    shares = {scale: _smooth(inside, scale, width) + 1e-3 for scale in (*SCALES, TEXTURE)}
    columns: list[np.ndarray] = []
    per_channel = len(SCALES) + 4 + len(mirror)
    for x_XYZ, acquired in zip(x_CXYZ, acquired_C, strict=True):
        if not acquired or not tissue.any():
            columns += [np.zeros(int(tissue.sum()), np.float32)] * per_channel
            continue
        z = np.where(tissue, (x_XYZ - np.median(x_XYZ[tissue])) / (x_XYZ[tissue].std() + TINY), 0).astype(np.float32)
        means = [_smooth(z, scale, width) / shares[scale] for scale in SCALES]
        square = _smooth(z * z, TEXTURE, width) / shares[TEXTURE]
        spread = np.sqrt(np.maximum(square - (_smooth(z, TEXTURE, width) / shares[TEXTURE]) ** 2, 0))
        steps = np.gradient(means[0])
        slope = np.sqrt(sum(step * step for step in steps))
        sides = [_smooth(means[1] - _mirrored(means[1], axis, middle[axis]), SCALES[1], width) for axis in mirror]
        maps = [z, *means, spread, slope, *sides]
        columns += [values[tissue] for values in maps] + [np.ones(int(tissue.sum()), np.float32)]
    return Surroundings(tissue, np.stack([*columns, *_place(tissue, width)], axis=1).astype(np.float32))


def _tissue(x_CXYZ: np.ndarray) -> np.ndarray:
    """Bool: bright in some channel; what it encloses slice by slice too."""
    bright = np.asarray(ndimage.binary_opening((x_CXYZ > FOREGROUND).any(axis=0)))
    planes = [bright] if bright.ndim == 2 else [*np.moveaxis(bright, 2, 0)]
    filled = [np.asarray(ndimage.binary_fill_holes(plane)) for plane in planes]
    return filled[0] if bright.ndim == 2 else np.stack(filled, axis=2)


def _smooth(x_XYZ: np.ndarray, scale: float, width: Sequence[float]) -> np.ndarray:
    return ndimage.gaussian_filter(x_XYZ, [scale * w for w in width], mode="constant", truncate=3.0)


def _mirrored(x_XYZ: np.ndarray, axis: int, middle: float) -> np.ndarray:
    """Each voxel what lies as far on the other side of the middle."""
    shift = round(2 * middle) - (x_XYZ.shape[axis] - 1)
    return np.roll(np.flip(x_XYZ, axis), shift, axis)


def _place(tissue: np.ndarray, width: Sequence[float]) -> list[np.ndarray]:
    """Of each tissue voxel where it lies between the ends of the tissue, and how deep."""
    places = np.argwhere(tissue)
    if not len(places):
        return [np.zeros(0, np.float32)] * (tissue.ndim + 1)
    low, high = places.min(axis=0), places.max(axis=0)
    depth = np.asarray(ndimage.distance_transform_edt(tissue, sampling=[1 / w for w in width]))
    longest = max((high - low) / np.asarray(width)) + 1
    return [*((places - low) / (high - low + 1)).T, depth[tissue] / longest]
