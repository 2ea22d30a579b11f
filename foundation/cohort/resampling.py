"""Images onto other grids: smoothed, then interpolated linearly, along their own axes or onto any grid in space."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SAME_PLACE = 0.01
"""Distance, in voxels, below which two places are one."""
SAME_SPACING = 1e-4
"""Relative difference of spacing below which there is nothing to resample: headers keep six or seven digits."""
LARGEST_SKEW = 0.25
"""Voxels that the far end of one axis may lie off a right angle to another: positions are rounded."""

MOST_VOXELS = 2**30
"""Voxels of one channel after resampling, 4 GB, beyond which the stated size of its voxels is wrong."""


def zooms(affine: np.ndarray) -> np.ndarray:
    """Millimetres per voxel along each axis of an affine [A + 1, A + 1]."""
    return np.linalg.norm(affine[:-1, :-1], axis=0)


def moved(affine: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """The affine of a grid whose first voxel lies `voxels` [A] further along the axes."""
    other = affine.copy()
    other[:-1, -1] += affine[:-1, :-1] @ voxels
    return other


def to_spacing(voxels: np.ndarray, affine: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image at another spacing, from the same first voxel on, as far as its last one, and the new affine.

    Args:
        voxels: [X, Y] or [X, Y, Z].
        affine: Of as many axes.
        spacing: Millimetres for each axis.

    Raises:
        DataError: It would have more than `MOST_VOXELS`.
    """
    steps = spacing / zooms(affine)
    if np.allclose(steps, 1, rtol=SAME_SPACING, atol=0):
        return voxels, affine
    counts = np.rint((np.array(voxels.shape) - 1) / steps + 1).astype(int)
    _refuse_too_many(counts, affine)
    for axis, (count, step) in enumerate(zip(counts, steps, strict=True)):
        voxels = _along(voxels, axis, int(count), 0.0, float(step))
    scale = np.diag([*steps, 1.0])
    return voxels, affine @ scale


def to_shape(voxels: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An image stretched to another shape, the edges of its first and last voxels where they were; and its affine."""
    steps = np.array(voxels.shape) / np.array(shape)
    for axis, (count, step) in enumerate(zip(shape, steps, strict=True)):
        voxels = _along(voxels, axis, count, (float(step) - 1) / 2, float(step))
    return voxels, moved(affine, (steps - 1) / 2) @ np.diag([*steps, 1.0])


def to_grid(
    voxels: np.ndarray, affine: np.ndarray, target: np.ndarray, shape: tuple[int, ...], outside: float
) -> np.ndarray:
    """An image on another grid in space, float32.

    Args:
        voxels: [X, Y, Z].
        affine: [4, 4].
        target: [4, 4], affine of the other grid.
        shape: Of the other grid.
        outside: Value of what the image does not cover.
    """
    from scipy.ndimage import affine_transform

    places = np.linalg.solve(affine, target)
    single = voxels.astype(np.float32, copy=False)
    # The stubs take the offset for a number.
    offset: Any = places[:3, 3]
    return affine_transform(
        single, places[:3, :3], offset, shape, np.float32, order=1, mode="grid-constant", cval=outside
    )


def smoothed(voxels: np.ndarray, affine: np.ndarray, target: np.ndarray) -> np.ndarray:
    """An image [X, Y, Z] as float32, without what is too fine for the grid of the affine `target` [4, 4]."""
    from scipy.ndimage import gaussian_filter

    widths = [_width(step) for step in np.linalg.norm(np.linalg.solve(affine, target)[:3, :3], axis=1)]
    single = voxels.astype(np.float32, copy=False)
    return gaussian_filter(single, sigma=widths, mode="nearest") if any(widths) else single


def upright_grid(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """A right-angled grid that holds an image whose axes are sheared; None where they are at right angles.

    The two axes that are closest to a right angle, those of a slice, stay; the third is turned upright.

    Args:
        affine: [4, 4].
        shape: Of the image.

    Returns:
        Affine [4, 4] and shape.

    Raises:
        DataError: It would have more than `MOST_VOXELS`.
    """
    sizes, spacing = np.array(shape), zooms(affine)
    units = affine[:3, :3] / spacing
    cosines = np.abs(units.T @ units - np.eye(3))
    skew = cosines * spacing[:, None] * (sizes[:, None] - 1) / spacing
    if skew.max() <= LARGEST_SKEW:
        return None
    first, second = min(((0, 1), (0, 2), (1, 2)), key=lambda pair: cosines[pair])
    order = [first, second, 3 - first - second]
    turned, triangle = np.linalg.qr(affine[:3, order])
    axes, spacing = np.empty((3, 3)), np.empty(3)
    axes[:, order], spacing[order] = turned * np.sign(np.diag(triangle)), np.abs(np.diag(triangle))
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (sizes - 1)
    along = (corners @ affine[:3, :3].T) @ axes / spacing
    low = np.floor(along.min(axis=0) + SAME_PLACE)
    target = np.eye(4)
    target[:3, :3], target[:3, 3] = axes * spacing, affine[:3, 3]
    long = (np.ceil(along.max(axis=0) - SAME_PLACE) - low).astype(int) + 1
    _refuse_too_many(long, affine)
    return moved(target, low), tuple(long.tolist())


def _refuse_too_many(counts: np.ndarray, affine: np.ndarray) -> None:
    if np.prod(counts, dtype=np.float64) > MOST_VOXELS:
        measures = " x ".join(f"{zoom:g}" for zoom in zooms(affine))
        raise DataError(
            f"resampled it would have {' x '.join(map(str, counts))} voxels, as its header says that one measures "
            f"{measures} mm",
            fix="correct the header's unit or voxel size, or state a larger `spacing`",
        )


def is_same_grid(one: tuple[np.ndarray, tuple[int, ...]], other: tuple[np.ndarray, tuple[int, ...]]) -> bool:
    """Whether two grids, each an affine and a shape, have their corners in the same places."""
    if one[1] != other[1]:
        return False
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float).T
    corners[:3] *= np.array(one[1])[:, None]
    return bool(np.abs(np.linalg.solve(other[0], one[0] @ corners) - corners).max() < SAME_PLACE)


def _along(voxels: np.ndarray, axis: int, count: int, start: float, step: float) -> np.ndarray:
    """An image sampled along one axis at the places `start` + k `step`; itself where these are its own voxels."""
    length = voxels.shape[axis]
    if count == length and start == 0 and abs(step - 1) < SAME_SPACING:
        return voxels
    first = np.moveaxis(voxels, axis, 0)
    # In the order in which it lies in memory: what is copied is what the product reads anyway.
    rest = sorted(range(1, first.ndim), key=lambda at: -first.strides[at])
    laid = first.transpose(0, *rest)
    # Above the lowest value, so that what lies in air stays at its value exactly.
    lowest = np.float32(voxels.min())
    flat = _matrix(length, count, start, step) @ (laid.reshape(length, -1).astype(np.float32, copy=False) - lowest)
    flat += lowest
    back = np.argsort([0, *rest])
    return np.moveaxis(flat.reshape(count, *laid.shape[1:]).transpose(back), 0, axis)


@lru_cache(maxsize=64)
def _matrix(length: int, count: int, start: float, step: float) -> csr_array:
    """[count, length]: smoothing and linear interpolation along an axis, both linear, as one sparse matrix.

    Beyond the first and the last voxel values are those of the edge.
    """
    from scipy.sparse import csr_array

    places = np.clip(start + step * np.arange(count), 0, length - 1)
    below = np.minimum(places.astype(int), max(length - 2, 0))
    share, width = places - below, _width(step)
    reach = int(4 * width + 0.5)
    taps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (taps / (width or 1.0)) ** 2)
    kernel /= kernel.sum()
    rows = np.repeat(np.arange(count), 2 * len(taps))
    columns = np.clip(below[:, None, None] + np.array([0, 1])[:, None] + taps, 0, length - 1)
    weights = np.stack([1 - share, share], axis=1)[:, :, None] * kernel
    matrix = csr_array((weights.ravel().astype(np.float32), (rows, columns.ravel())), shape=(count, length))
    matrix.eliminate_zeros()
    return matrix


def _width(step: float) -> float:
    """Standard deviation, in voxels, of the smoothing before samples are taken `step` voxels apart."""
    width = max((step - 1) / 2, 0.0)
    return width if width >= SAME_PLACE else 0.0
