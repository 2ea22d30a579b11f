"""Forest plots: scores with their intervals, one below the other, against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from foundation.report.drawing import BLUE, GREEN, GREY, ORANGE, drawing, picture
from foundation.report.page import Picture
from foundation.wording import decimal, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 500
ROW = 22
"""Height of a row in CSS pixels."""

LINE = 34
"""Characters of a name on one line."""


@dataclass(frozen=True)
class Row:
    """A row of a forest plot.

    Attributes:
        name: Stands at the left.
        score: Its ``mean`` and ``ci95``, either of which may be missing.
        ours: Drawn in the colour of our own results.
        baseline: A score to set beside it, such as that of the best baseline.
    """

    name: str
    score: Mapping[str, Any]
    ours: bool = True
    baseline: float | None = None


def forest(
    rows: Sequence[Row],
    *,
    measure: str,
    chance: float,
    oracle: float | None = None,
    title: str = "",
    caption: str = "",
) -> Picture:
    """Draw scores, with the numbers at the right.

    Args:
        rows: From above to below.
        measure: Label of the axis.
        chance: What a constant answer reaches.
        oracle: What someone who knows the truth would reach.
        title: Stands above the figure.
        caption: Stands below the figure.
    """
    with drawing(WIDTH, 78 + ROW * len(rows)) as (figure, stream):
        axes = figure.add_subplot()
        axes.axvline(chance, color=GREY, linewidth=1.2, linestyle="--", label="chance")
        if oracle is not None:
            axes.axvline(oracle, color=GREEN, linewidth=1.4, label="best possible")
        for place, row in enumerate(rows):
            _draw(axes, place, row)
        if any(row.baseline is not None for row in rows):
            axes.plot([], [], "D", color=ORANGE, markersize=4.5, fillstyle="none", label="best baseline")
        axes.set_yticks(range(len(rows)), [_label(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.set_xlabel(measure)
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    told = "; ".join(f"{row.name} {_numbers(row.score)}" for row in rows)
    return picture(stream, WIDTH, f"{measure}, chance {chance:.3g}: {told}", title, caption)


def _draw(axes: Axes, place: int, row: Row) -> None:
    color = BLUE if row.ours else GREY
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
    axes.text(1.02, place, _numbers(row.score), color="black" if row.ours else "#444444", **beside)
    if row.baseline is not None:
        axes.plot(row.baseline, place, "D", color=ORANGE, markersize=4.5, fillstyle="none", zorder=3)
    if row.score.get("mean") is None:
        return
    low, high = row.score.get("ci95") or (None, None)
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=color, linewidth=2)
    axes.plot(row.score["mean"], place, "o" if row.ours else "s", color=color, markersize=6)


def _label(name: str) -> str:
    """A name in as many as two lines."""
    return "\n".join(wrap(name, LINE, max_lines=2, placeholder="…"))


def _numbers(score: Mapping[str, Any]) -> str:
    if score.get("mean") is None:
        return "not scored"
    bounds = interval(score.get("ci95"))
    return decimal(score["mean"]) + (f" ({bounds})" if bounds != "–" else "")
