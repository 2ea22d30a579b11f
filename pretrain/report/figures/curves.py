"""The figure of curves: a small panel for each quantity over the steps, on training and on held-out patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.report.drawing import BLUE, ORANGE, SMALL, WIDE, drawing, picture
from foundation.report.page import Picture
from foundation.wording import shortened

MOST_POINTS = 200
"""Points of a curve; more steps are averaged."""


@dataclass(frozen=True)
class Series:
    """One quantity over the steps of a run.

    Attributes:
        name: What it is.
        train: Pairs of step and value on training batches.
        held_out: Pairs of step and value on held-out patients.
    """

    name: str
    train: Sequence[tuple[float, float]] = ()
    held_out: Sequence[tuple[float, float]] = ()


def curves(series: Sequence[Series], *, alt: str, caption: str) -> Picture:
    """Draw a small panel per quantity, side by side."""
    across = min(3, len(series))
    down = -(-len(series) // across)
    width = {1: SMALL, 2: 720}.get(across, WIDE)
    with drawing(width, 40 + 175 * down) as (figure, stream):
        for position, one in enumerate(series):
            axes = figure.add_subplot(down, across, position + 1)
            axes.set_title(shortened(one.name, 44), loc="left")
            if one.train:
                axes.plot(*averaged(one.train), color=BLUE, linewidth=1.3, label="training")
            if one.held_out:
                axes.plot(*np.transpose(one.held_out), "o-", color=ORANGE, markersize=4, label="held-out")
            if one.train and one.held_out:
                axes.legend(frameon=False, fontsize=8)
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.margins(x=0.02)
            if position >= len(series) - across:
                axes.set_xlabel("step")
    return picture(stream, width, alt, caption=caption)


def averaged(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, neighbours averaged so that at most MOST_POINTS are left."""
    steps, values = np.transpose(np.asarray(points, dtype=np.float64))
    edges = np.unique(np.linspace(0, len(steps), min(len(steps), MOST_POINTS) + 1).astype(np.int64))
    size = np.diff(edges)
    return np.add.reduceat(steps, edges[:-1]) / size, np.add.reduceat(values, edges[:-1]) / size
