"""The curve of label efficiency: the score of each method over the number of labelled training patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundation.report.drawing import BLUE, DOTS_PER_INCH, GREY, PALETTE, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import decimal

HEIGHT = 300
APART = 0.02
"""Of the width, between the points of two curves, so that their intervals can be told apart."""


def few_labels(
    curves: Mapping[str, Mapping[int, Mapping[str, Any]]], *, measure: str, chance: float, caption: str
) -> Picture:
    """Draw scores over the number of labelled training patients.

    Args:
        curves: Method, ours first, to number of labelled patients to a score with ``mean`` and ``ci95``.
        measure: Label of the axis.
        chance: What a constant answer reaches.
        caption: Stands below the figure.
    """
    width = SMALL + DOTS_PER_INCH
    with drawing(width, HEIGHT) as (figure, stream):
        axes = figure.add_subplot()
        axes.axhline(chance, color=GREY, linewidth=1, linestyle="--")
        for place, (name, scores) in enumerate(curves.items()):
            known = {n: s for n, s in sorted(scores.items()) if s.get("mean") is not None}
            x = [n * (1 + APART * (place - len(curves) / 2)) for n in known]
            y = [score["mean"] for score in known.values()]
            color = BLUE if place == 0 else PALETTE[place % len(PALETTE)]
            axes.plot(x, y, "o-", color=color, markersize=4, linewidth=2 if place == 0 else 1.2, label=name)
            for at, score in zip(x, known.values(), strict=True):
                if None not in (score.get("ci95") or [None]):
                    axes.plot([at, at], score["ci95"], color=color, linewidth=0.8)
        ticks = sorted({n for scores in curves.values() for n in scores})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.set(xlabel="labelled training patients", ylabel=measure)
        axes.legend(frameon=False, fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
    told = "; ".join(f"{name} {_in_words(scores)}" for name, scores in curves.items())
    return picture(stream, width, f"{measure} over labelled patients: {told}", "Few labels", caption)


def _in_words(scores: Mapping[int, Mapping[str, Any]]) -> str:
    return ", ".join(f"{decimal(score.get('mean'))} with {labels}" for labels, score in sorted(scores.items()))
