"""The figure of patterns: a column of dots and a bar for each set of names that occur together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from foundation.report.drawing import BLUE, GREEN, GREY, PALE, SMALL, WIDE, drawing, picture
from foundation.report.page import Picture
from foundation.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
