"""The figure of an endpoint's probes: each view's score with its interval, chance, and the best possible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foundation.report.drawing import BLUE, GREEN, GREY, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
