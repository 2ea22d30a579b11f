"""How figures are drawn: the project's colours, sizes and style, as SVG that is the same to the byte each time."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foundation.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, PALE = "#0072B2", "#D55E00", "#009E73", "#767676", "#D9DDE1"
"""Blue, vermilion and green are told apart by colour-blind readers (Okabe and Ito); greys mean "missing"."""

PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
"""For classes: all of them told apart by colour-blind readers, the yellow darkened for white paper."""

DOTS_PER_INCH = 96
SMALL, WIDE = 340, 1080
"""Widths of figures in CSS pixels: one column of the page, and all of it."""

_STYLE: Any = {
    "svg.hashsalt": "chiasma",
    "text.parse_math": False,
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.dpi": 72,
}


@contextlib.contextmanager
def drawing(width: int, height: int) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of that many CSS pixels in the project's style, whatever the user's own; its SVG follows at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), layout="constrained")
        yield figure, stream
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})


def picture(stream: io.BytesIO, width: int, alt: str, title: str = "", caption: str = "") -> Picture:
    """What was drawn, for a page."""
    return Picture(stream.getvalue(), "image/svg+xml", width, alt, title, caption)
