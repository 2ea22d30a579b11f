"""Regions drawn on a source image, onto the grid on which the cohort stores it; and what of them is lost."""

from __future__ import annotations

import numpy as np

from foundation.cohort.annotations.base import Drawing
from foundation.cohort.imaging import StandardImage
from foundation.cohort.records import Annotation
from foundation.cohort.resampling import SAME_PLACE

NO_MOVE = SAME_PLACE / 10
"""Source voxels, over the whole of a stored axis, that an affine's digits leave of none."""


def annotate(drawings: list[Drawing], regions: list[str], image: StandardImage) -> Annotation:
    """Bring drawings onto the grid of their image as stored.

    Each stored voxel takes what is drawn at the source voxel nearest to its centre, the lower one of two equally near;
    what padding adds has no region.

    Args:
        drawings: Of one image; a region that two of them hold is where either has it.
        regions: Names, in the order of the axis R.
        image: As stored.
    """
    masks_RXYZ = np.zeros((len(regions), *image.voxels.shape[1:]), dtype=bool)
    annotated_R = np.zeros(len(regions), dtype=bool)
    drawn_R, inside_R = np.zeros(len(regions)), np.zeros(len(regions))
    for drawing in drawings:
        to_source = np.linalg.solve(drawing.grid.affine, image.grid)
        nearest = _nearest(to_source, drawing.grid.shape, image)
        for name, mask in drawing.regions.items():
            at = regions.index(name)
            annotated_R[at] = True
            places = np.argwhere(mask)
            drawn_R[at] += len(places)
            inside_R[at] += np.count_nonzero(_is_inside(places, to_source, image))
            masks_RXYZ[at][image.inside] |= mask.ravel()[nearest] & (nearest >= 0)
    kept_R = np.divide(inside_R, drawn_R, out=np.full(len(regions), np.nan), where=drawn_R > 0)
    kept_R[(drawn_R > 0) & ~masks_RXYZ.reshape(len(regions), -1).any(axis=1)] = 0
    return Annotation(masks_RXYZ, annotated_R, kept_R.astype(np.float32))


def _nearest(to_source: np.ndarray, shape: tuple[int, ...], image: StandardImage) -> np.ndarray:
    """For each stored voxel that is no padding, the position of its source voxel in C order, -1 where there is none.

    A stored voxel whose centre lies beyond the source by up to half of its own length shows the edge, as in the image.

    Args:
        to_source: [4, 4], indices of stored voxels to those of source voxels.
        shape: [3] of the source.
        image: As stored.
    """
    ranges = [np.arange(part.start, part.stop, dtype=np.float64) for part in image.inside]
    flat = np.zeros([len(steps) for steps in ranges], dtype=np.int64)
    outside = np.zeros(flat.shape, dtype=bool)
    for axis, length in enumerate(shape):
        # As small as it can be: along most axes of most scans the place on this one does not change.
        place = np.full([1] * flat.ndim, to_source[axis, 3])
        for along, steps in enumerate(ranges):
            move = to_source[axis, along] * steps
            if np.abs(move).max() > NO_MOVE:
                place = place + move.reshape([-1 if a == along else 1 for a in range(flat.ndim)])
        reach = max(1.0, np.abs(to_source[axis, : flat.ndim]).max()) / 2 + SAME_PLACE
        outside |= (place < -reach) | (place > length - 1 + reach)
        nearest = np.clip(np.ceil(place - 0.5 - SAME_PLACE), 0, length - 1).astype(np.int64)
        flat = flat * length + nearest
    flat[outside] = -1
    return flat


def _is_inside(places: np.ndarray, to_source: np.ndarray, image: StandardImage) -> np.ndarray:
    """Which source voxels [n, 3] have their centre in a voxel of the stored grid."""
    stored = np.linalg.solve(to_source, np.concatenate([places, np.ones((len(places), 1))], axis=1).T)
    within = np.ones(len(places), dtype=bool)
    for at, size in zip(stored, image.voxels.shape[1:], strict=False):
        within &= (at >= -0.5 - SAME_PLACE) & (at <= size - 0.5 + SAME_PLACE)
    return within
