"""The figure of classes: a bar for each, and one for patients whose class is not known."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.report.drawing import BLUE, PALE, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import percent, shortened


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
