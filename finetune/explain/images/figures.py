"""Panels of a map over its scan: planes through its maximum, or values by region, with a scale in the score's unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from finetune.explain.images.planes import Plane
from foundation.report.drawing import BLUE, ORANGE, drawing, picture
from foundation.report.page import Picture

WIDTH, HEIGHT = 720, 290
MOST_OPAQUE = 0.85


def panels(
    scan_XYZ: np.ndarray,
    map_XYZ: np.ndarray,
    planes: Sequence[Plane],
    spacing: Sequence[float],
    *,
    unit: str,
    title: str,
    caption: str,
) -> Picture:
    """Draw the planes through the voxel where the map is farthest from 0.

    Args:
        scan_XYZ: Intensities.
        map_XYZ: On the same grid.
        planes: To draw.
        spacing: Millimetres per voxel along each axis.
        unit: Of the map, for the scale.
        title: Stands above.
        caption: Stands below.
    """
    at = peak(map_XYZ)
    slices = [(plane.name, map_XYZ, plane, at[plane.through]) for plane in planes]
    alt = f"{title}: planes through the maximum of the map"
    return _drawn(scan_XYZ, slices, spacing, "bilinear", unit, Words(alt, title, caption))


def pair_panels(
    scan_XYZ: np.ndarray,
    found: Sequence[tuple[str, np.ndarray, int]],
    plane: Plane,
    spacing: Sequence[float],
    *,
    unit: str,
    title: str,
    caption: str,
) -> Picture:
    """Draw how the effects of several values depend on regions, each in the slice through its strongest region.

    Args:
        scan_XYZ: Intensities.
        found: Of each value its name, interactions [X, Y, Z] that are level within regions, and the slice.
        plane: Of the slices.
        spacing: Millimetres per voxel along each axis.
        unit: Of interactions, for the scale.
        title: Stands above.
        caption: Stands below.
    """
    slices = [(name, map_XYZ, plane, at) for name, map_XYZ, at in found]
    alt = (
        f"{title}: {plane.name} slices with the interactions of {', '.join(name for name, _, _ in found)} with regions"
    )
    return _drawn(scan_XYZ, slices, spacing, "nearest", unit, Words(alt, title, caption))


class Words(NamedTuple):
    """What is read of a figure."""

    alt: str
    title: str
    caption: str


def _drawn(
    scan_XYZ: np.ndarray,
    slices: Sequence[tuple[str, np.ndarray, Plane, int]],
    spacing: Sequence[float],
    between: str,
    unit: str,
    words: Words,
) -> Picture:
    """Slices of maps over slices of a scan, on one scale; `between` is how pixels of a map are interpolated."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("signed", [BLUE, "#ffffff", ORANGE])
    limit = max(1e-12, *(float(np.abs(map_XYZ).max()) for _, map_XYZ, _, _ in slices))
    low, high = np.percentile(scan_XYZ, [1, 99.5])
    with drawing(WIDTH, HEIGHT) as (figure, stream):
        figure.set_dpi(120)
        for n, (name, map_XYZ, plane, at) in enumerate(slices):
            axes = figure.add_subplot(1, len(slices), n + 1)
            aspect = spacing[plane.down] / spacing[plane.across]
            axes.imshow(plane.picture(scan_XYZ, at), cmap="gray", vmin=low, vmax=high, aspect=aspect)
            value = plane.picture(map_XYZ, at) / limit
            painted = colours((value + 1) / 2)
            painted[..., :3] = colours(np.where(value < 0, 0.0, 1.0))[..., :3]
            painted[..., 3] = MOST_OPAQUE * np.abs(value)
            axes.imshow(painted, aspect=aspect, interpolation=between)
            axes.set_title(name)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_facecolor("black")
            for letter, x, y in zip(plane.edges, (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.97, 0.03), strict=True):
                axes.text(x, y, letter, color="#ffd54d", transform=axes.transAxes, ha="center", va="center", fontsize=8)
        mapped = _scale(limit, colours)
        bar = figure.colorbar(mapped, ax=figure.axes, aspect=24, pad=0.01, shrink=0.85)
        bar.set_label(unit)
    return picture(stream, WIDTH, *words)


def peak(map_XYZ: np.ndarray) -> tuple[int, ...]:
    """Voxel where a map is farthest from 0."""
    return tuple(int(i) for i in np.unravel_index(np.abs(map_XYZ).argmax(), map_XYZ.shape))


def _scale(limit: float, colours: Any) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-limit, limit), colours)
