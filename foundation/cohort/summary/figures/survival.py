"""The figure of survival: a Kaplan-Meier curve with its band, and the numbers at risk below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from foundation.metrics.survival_curves import kaplan_meier
from foundation.report.drawing import BLUE, GREY, SMALL, drawing, picture
from foundation.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_STEPS = 400
"""Points at which a survival curve is drawn, however many patients there are."""


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
