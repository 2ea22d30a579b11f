"""The plots of a pretraining report, as SVG that is the same to the byte each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.report.drawing import BLUE, GREEN, GREY, ORANGE, PALE, PALETTE, SMALL, WIDE, drawing, picture
from foundation.report.page import Picture
from foundation.wording import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 200
"""Points of a curve; more steps are averaged."""

MOST_COLOURS = 8

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


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


def probe_plot(
    views: Mapping[str, Mapping[str, Any]], *, title: str, metric: str, oracle: float | None, caption: str
) -> Picture:
    """Draw what each view's probe reaches, with its interval, chance and, where it is known, the best possible.

    Args:
        views: View to ``value``, ``ci95`` and ``chance``; others are drawn as "not measured".
        title: Stands above the figure.
        metric: Label of the axis.
        oracle: What someone who knows the truth would reach.
        caption: Stands below the figure.
    """
    with drawing(SMALL, 78 + 26 * len(views)) as (figure, stream):
        axes = figure.add_subplot()
        for row, result in enumerate(views.values()):
            if "value" not in result:
                axes.text(0.02, row, "not measured", va="center", color=GREY, transform=axes.get_yaxis_transform())
                continue
            low, high = result["ci95"]
            if low is not None:
                axes.plot([low, high], [row, row], color=BLUE, linewidth=2)
            axes.plot(result["value"], row, "o", color=BLUE, markersize=6)
            if result.get("before_training") is not None:
                axes.plot(result["before_training"], row, "o", color=BLUE, markersize=5, fillstyle="none")
            # Probes of one endpoint may have left different classes out, so that chance is each row's own.
            axes.plot([result["chance"]] * 2, [row - 0.5, row + 0.5], color=GREY, linewidth=1.2, linestyle="--")
        if oracle is not None:
            axes.axvline(oracle, color=GREEN, linewidth=1.4)
        _legend(axes, oracle, any(result.get("before_training") is not None for result in views.values()))
        axes.set_yticks(range(len(views)), [shortened(name) for name in views])
        axes.set_ylim(len(views) - 0.5, -0.5)
        if metric != "R²":
            axes.set_xlim(0, 1.02)
        axes.set_xlabel(metric)
    reached = ", ".join(f"{name} {r['value']:.2f}" for name, r in views.items() if "value" in r)
    return picture(stream, SMALL, f"{metric} of probes of {title}: {reached or 'none'}", title, caption)


def _legend(axes: Axes, oracle: float | None, before: bool) -> None:
    axes.plot([], [], color=GREY, linewidth=1.2, linestyle="--", label="chance")
    if before:
        axes.plot([], [], "o", color=BLUE, markersize=5, fillstyle="none", label="before training")
    if oracle is not None:
        axes.plot([], [], color=GREEN, linewidth=1.4, label="best possible")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)


def map_plot(x: Sequence[float], y: Sequence[float], names: Sequence[str], *, title: str, caption: str) -> Picture:
    """Draw records in the plane, coloured by name; the most frequent names have colours, an empty one is unknown."""
    points_N2 = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)], axis=1)
    of_record = np.asarray(names, dtype=str)
    known, count = np.unique(of_record[of_record != ""], return_counts=True)
    shown = [str(known[i]) for i in sorted(range(len(known)), key=lambda i: (-count[i], known[i]))[:MOST_COLOURS]]
    rest = ~np.isin(of_record, shown)
    with drawing(SMALL, 330 + 12 * -(-len(shown) // 2)) as (figure, stream):
        axes = figure.add_subplot()
        if rest.any():
            unknown = "not known" if len(known) <= len(shown) else f"{len(known) - len(shown)} others, or not known"
            axes.scatter(*points_N2[rest].T, s=10, color=PALE, label=unknown, linewidths=0)
        for position, name in enumerate(shown):
            here = points_N2[of_record == name].T
            style = {"color": PALETTE[position], "marker": MARKERS[position]}
            axes.scatter(*here, s=14, alpha=0.8, linewidths=0, label=shortened(name), **style)
        axes.set(xticks=[], yticks=[], xlabel="first axis", ylabel="second axis")
        axes.set_aspect("equal", adjustable="datalim")
        figure.legend(loc="outside lower left", frameon=False, fontsize=8, ncols=2, markerscale=1.3)
    alt = f"Map of {len(of_record)} records coloured by {title}: {', '.join(shown) or 'not known'}"
    return picture(stream, SMALL, alt, title, caption)
