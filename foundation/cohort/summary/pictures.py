"""The plots of a cohort's summary, as SVG that is the same to the byte every time."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from foundation.metrics.survival import kaplan_meier
from foundation.report.drawing import BLUE, GREEN, GREY, ORANGE, PALE, SMALL, WIDE, drawing, picture
from foundation.report.page import Picture
from foundation.wording import percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_STEPS = 400
"""Points at which a survival curve is drawn, however many patients there are."""


class Pattern(NamedTuple):
    """A set of names that occur together in `patients` patients; `rest` stands for all patterns not shown."""

    names: frozenset[str]
    patients: int
    rest: str = ""


def pattern_plot(patterns: Sequence[Pattern], totals: Mapping[str, int], patients: int, caption: str) -> Picture:
    """Draw patterns as columns of dots with a bar each, and totals of the names at the side.

    Args:
        patterns: In the order in which they are drawn.
        totals: Name to patients who have it, in the order of the rows.
        patients: All of them; percentages are of this.
        caption: Stands below the figure.
    """
    width = min(WIDE, max(SMALL, 230 + 36 * len(patterns) + 7 * max(map(len, totals))))
    with drawing(width, 190 + 24 * len(totals)) as (figure, stream):
        side = 170 / (width - 190)
        bars, dots, sums = _pattern_axes(figure, len(totals), side)
        columns = np.arange(len(patterns))
        counts = [pattern.patients for pattern in patterns]
        bars.bar(columns, counts, color=[GREY if pattern.rest else BLUE for pattern in patterns], width=0.62)
        for column, count in enumerate(counts):
            bars.annotate(f"{count:,}", (column, count), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        bars.set_ylabel("patients")
        bars.set_ylim(0, max(counts) * 1.15)
        _draw_dots(dots, patterns, list(totals))
        sums.barh(np.arange(len(totals)), list(totals.values()), color=GREEN, height=0.62)
        for row, total in enumerate(totals.values()):
            text = f"{total:,} ({percent(total, patients)})"
            sums.annotate(text, (total, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
        sums.set_xlim(0, max(1, *totals.values()) * 2.0)
        sums.set_xticks([])
        sums.spines["bottom"].set_visible(False)
        sums.set_xlabel("patients who have it")
    most = patterns[0]
    named = ", ".join(sorted(most.names)) or "none of them"
    alt = f"Patterns of presence over {', '.join(totals)}; the most frequent, {most.patients} patients: {named}"
    return picture(stream, width, alt, caption=caption)


def _pattern_axes(figure: Figure, rows: int, side: float) -> tuple[Axes, Axes, Axes]:
    grid = figure.add_gridspec(2, 2, width_ratios=(1, side), height_ratios=(130, 24 * rows), hspace=0.02, wspace=0.02)
    bars = figure.add_subplot(grid[0, 0])
    dots = figure.add_subplot(grid[1, 0], sharex=bars)
    sums = figure.add_subplot(grid[1, 1], sharey=dots)
    bars.tick_params(labelbottom=False, bottom=False)
    sums.tick_params(labelleft=False, left=False)
    return bars, dots, sums


def _draw_dots(axes: Axes, patterns: Sequence[Pattern], names: list[str]) -> None:
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#F3F5F7", zorder=0)
    for column, pattern in enumerate(patterns):
        if pattern.rest:
            axes.text(column, (len(names) - 1) / 2, pattern.rest, rotation=90, ha="center", va="center", fontsize=8)
            continue
        here = [row for row, name in enumerate(names) if name in pattern.names]
        gone = [row for row, name in enumerate(names) if name not in pattern.names]
        axes.scatter([column] * len(gone), gone, s=34, color=PALE, zorder=2)
        axes.scatter([column] * len(here), here, s=34, color=BLUE, zorder=3)
        if here:
            axes.plot([column, column], [min(here), max(here)], color=BLUE, linewidth=1.4, zorder=2)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(patterns) - 0.4)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


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


def class_bars(classes: Mapping[str, int], missing: int, *, alt: str, title: str, caption: str) -> Picture:
    """Draw one bar per class, and a grey one for patients of whom the class is not known."""
    known = sum(classes.values())
    with drawing(SMALL, 44 + 26 * (len(classes) + 1)) as (figure, stream):
        axes = figure.add_subplot()
        names = [*classes, "not known"]
        counts = [*classes.values(), missing]
        colors = [BLUE] * len(classes) + [PALE]
        axes.barh(range(len(names)), counts, color=colors, height=0.66)
        for row, count in enumerate(counts):
            text = f"{count:,}" + (f" ({percent(count, known)})" if row < len(classes) else "")
            axes.annotate(text, (count, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), [shortened(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, max(1, *counts) * 1.42)
        axes.set_xlabel("patients")
    return picture(stream, SMALL, alt, title, caption)


def survival_plot(
    time: np.ndarray, event: np.ndarray, *, horizon: float, unit: str, alt: str, title: str, caption: str
) -> Picture:
    """Draw a Kaplan-Meier curve with its band and the numbers at risk.

    Args:
        time: [N] in `unit`.
        event: [N] 1 happened, 0 censored.
        horizon: End of the time axis, the same for curves to be compared.
        unit: Of the time axis.
        alt: Alternative text.
        title: Stands above the figure.
        caption: Stands below the figure.
    """
    with drawing(SMALL, 290) as (figure, stream):
        axes = figure.add_subplot()
        curve = kaplan_meier(time, event)
        keep = np.unique(np.linspace(0, len(curve.times) - 1, MOST_STEPS).astype(int))
        times = np.append(curve.times[keep], max(time.max(), curve.times[-1]))
        free, low, high = (np.append(line[keep], line[-1]) for line in curve[1:])
        axes.fill_between(times, low, high, step="post", color=BLUE, alpha=0.2, linewidth=0)
        axes.step(times, free, where="post", color=BLUE, linewidth=1.6)
        axes.axhline(0.5, color=GREY, linewidth=0.7, linestyle=":")
        axes.set(xlim=(0, horizon), ylim=(0, 1.02), ylabel="free of the event", xlabel=unit)
        ticks = _ticks(horizon)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        _write_at_risk(axes, time, ticks)
    return picture(stream, SMALL, alt, title, caption)


def _write_at_risk(axes: Axes, time: np.ndarray, ticks: np.ndarray) -> None:
    """A row of numbers below the axis: patients still under observation at each tick."""
    below = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8}
    for tick in ticks:
        axes.annotate(f"{int(np.sum(time >= tick)):,}", (tick, 0), (0, -38), ha="center", **below)
    axes.annotate("at risk", (0, 0), (-16, -38), ha="right", **below)


def _ticks(horizon: float) -> np.ndarray:
    from matplotlib.ticker import MaxNLocator

    ticks = np.asarray(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, horizon))
    return ticks[(ticks >= 0) & (ticks <= horizon)]
