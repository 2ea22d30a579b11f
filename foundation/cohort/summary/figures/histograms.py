"""Histograms: one, or a small panel for each feature; their bins, marks and bands."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foundation.report.drawing import BLUE, GREY, ORANGE, SMALL, drawing, picture
from foundation.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """One histogram.

    Attributes:
        values: Sampled values; what is not finite is not drawn.
        label: Of the horizontal axis.
        title: Above the panel.
        marks: Positions to mark with a line, and their names.
        bands: Ranges to shade.
        whole: Bins are as wide as a whole number, for values that are stored as such.
        log: The vertical axis is logarithmic, so that a peak of background leaves the rest to be seen.
    """

    values: np.ndarray
    label: str = ""
    title: str = ""
    marks: Mapping[str, float] | None = None
    bands: Sequence[tuple[float, float]] = ()
    whole: bool = False
    log: bool = False


def histogram(panel: Panel, *, alt: str, caption: str, counted: str = "values") -> Picture:
    """Draw one histogram in percent of what is `counted`."""
    with drawing(SMALL, 240) as (figure, stream):
        axes = figure.add_subplot()
        _draw_panel(axes, panel)
        axes.set_ylabel(f"% of {counted}" + (", log scale" if panel.log else ""))
    return picture(stream, SMALL, alt, panel.title, caption)


def histograms(panels: Sequence[Panel], *, alt: str, title: str, caption: str) -> Picture:
    """Draw a small histogram per feature, side by side."""
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    width = max(SMALL, 235 * across)
    with drawing(width, 40 + 150 * down) as (figure, stream):
        for position, panel in enumerate(panels):
            axes = figure.add_subplot(down, across, position + 1)
            _draw_panel(axes, panel)
            axes.set_title(panel.title, loc="left")
            if position % across == 0:
                axes.set_ylabel("% of values")
    return picture(stream, width, alt, title, caption)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_xlabel(textwrap.fill(panel.label, 48))
    values = panel.values[np.isfinite(panel.values)]
    if len(values) == 0:
        axes.text(0.5, 0.5, "no value", ha="center", va="center", transform=axes.transAxes, color=GREY)
        axes.set(xticks=[], yticks=[])
        return
    levels = few_levels(values)
    if levels is not None:
        shares = [100 * float(np.mean(values == level)) for level in levels]
        axes.bar([f"{level:g}" for level in levels], shares, color=BLUE, width=0.7)
        return
    edges = bin_edges(values, whole=panel.whole)
    counts, _ = np.histogram(values, bins=edges)
    shares = 100 * counts / len(values)
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(shares[shares > 0].min() / 2, shares.max() * 3)
    axes.stairs(shares, edges, fill=True, color=BLUE)
    axes.locator_params(axis="x", nbins=6)
    for low, high in panel.bands:
        axes.axvspan(low, high, color=ORANGE, alpha=0.18, linewidth=0, zorder=0)
    for position, (name, value) in enumerate((panel.marks or {}).items()):
        axes.axvline(value, color=ORANGE, linewidth=1.2, linestyle="--")
        # The names stand inside the two lines, so that neither is cut off at the edge.
        side, shift = ("left", 3) if position == 0 else ("right", -3)
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": side, "va": "top"}
        axes.annotate(name, (value, 0.98), (shift, 0), color=ORANGE, fontsize=8, **place)


def few_levels(values: np.ndarray, most: int = 8) -> np.ndarray | None:
    """The distinct values where they are few and whole numbers, else None."""
    if not np.array_equal(values[:1000], np.round(values[:1000])):
        return None
    levels = np.unique(values)
    return levels if len(levels) <= most and np.array_equal(levels, np.round(levels)) else None


def bin_edges(values: np.ndarray, *, whole: bool = False) -> np.ndarray:
    """Edges that show the middle 99.8 % of the values, so that a single outlier does not flatten the rest."""
    bins = int(np.clip(2 * np.sqrt(len(values)), 8, 60))
    low, high = np.quantile(values, [0.001, 0.999]).astype(float)
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low - 0.5, low + 0.5])
    if whole:
        step = max(1, -int(-(high - low) // bins))
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + step, step)
    return np.linspace(low, high, bins + 1)
