"""Panels of a map over its scan: three planes through its maximum, with a scale in the unit of the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("signed", [BLUE, "#ffffff", ORANGE])
    at = peak(map_XYZ)
    limit = max(float(np.abs(map_XYZ).max()), 1e-12)
    low, high = np.percentile(scan_XYZ, [1, 99.5])
    with drawing(WIDTH, HEIGHT) as (figure, stream):
        figure.set_dpi(120)
        for n, plane in enumerate(planes):
            axes = figure.add_subplot(1, len(planes), n + 1)
            aspect = spacing[plane.down] / spacing[plane.across]
            axes.imshow(plane.picture(scan_XYZ, at[plane.through]), cmap="gray", vmin=low, vmax=high, aspect=aspect)
            value = plane.picture(map_XYZ, at[plane.through]) / limit
            painted = colours((value + 1) / 2)
            painted[..., :3] = colours(np.where(value < 0, 0.0, 1.0))[..., :3]
            painted[..., 3] = MOST_OPAQUE * np.abs(value)
            axes.imshow(painted, aspect=aspect, interpolation="bilinear")
            axes.set_title(plane.name)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_facecolor("black")
            for letter, x, y in zip(plane.edges, (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.97, 0.03), strict=True):
                axes.text(x, y, letter, color="#ffd54d", transform=axes.transAxes, ha="center", va="center", fontsize=8)
        mapped = _scale(limit, colours)
        bar = figure.colorbar(mapped, ax=figure.axes, aspect=24, pad=0.01, shrink=0.85)
        bar.set_label(unit)
    return picture(stream, WIDTH, f"{title}: planes through the maximum of the map", title, caption)


def peak(map_XYZ: np.ndarray) -> tuple[int, ...]:
    """Voxel where a map is farthest from 0."""
    return tuple(int(i) for i in np.unravel_index(np.abs(map_XYZ).argmax(), map_XYZ.shape))


def _scale(limit: float, colours: Any) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-limit, limit), colours)
