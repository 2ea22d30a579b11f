"""The figure of a map: records as points in the plane, coloured by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.report.drawing import PALE, PALETTE, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import shortened

MOST_COLOURS = 8

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


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
