"""Figures of attributions: swarms over a cohort, bars of a patient, shares of modalities, deletion and insertion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from foundation.report.drawing import BLUE, GREY, ORANGE, PALE, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import shortened

ROW = 22
"""Height of a row in CSS pixels."""

SWARM = 720
BINS = 60
DPI = 160
"""Of the dots of a swarm, which are drawn as pixels: thousands of circles would make the page slow."""


def swarm(a_NK: np.ndarray, values_NK: np.ndarray, names: Sequence[str], score: str) -> Picture:
    """Draw attributions of features, a dot for each record, coloured by the rank of its value.

    Args:
        a_NK: Attributions.
        values_NK: NaN where not observed.
        names: [K] from above to below.
        score: That is explained.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("values", [BLUE, PALE, ORANGE])
    height = 60 + ROW * len(names)
    with drawing(SWARM, height) as (figure, stream):
        figure.set_dpi(DPI)
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linewidth=0.8)
        dots = None
        for k in range(len(names)):
            here = ~np.isnan(values_NK[:, k])
            if not here.any():
                continue
            a, value = a_NK[here, k], values_NK[here, k]
            rank = (
                np.searchsorted(np.sort(value), value, "left") + np.searchsorted(np.sort(value), value, "right")
            ) / 2
            y = -k + _offsets(a, np.abs(a_NK).max(initial=1e-12))
            dots = axes.scatter(
                a, y, c=rank / len(value), cmap=colours, vmin=0, vmax=1, s=9, linewidths=0, rasterized=True
            )
        axes.set_yticks([-k for k in range(len(names))], [shortened(name, 34) for name in names])
        axes.set_ylim(-len(names) + 0.4, 0.6)
        axes.set_xlabel(f"attribution to {score}")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if dots is not None:
            bar = figure.colorbar(dots, ax=axes, aspect=30, pad=0.01, shrink=0.8)
            bar.set_ticks([0, 1], labels=["low", "high"])
            bar.set_label("value, among all records")
            bar.outline.set_visible(False)  # type: ignore[operator]
    alt = f"Attributions to {score} of {len(names)} features; one dot per record, coloured by the feature's value"
    caption = "A dot is a record. Right of the line the value raised the score, left of it lowered it."
    return picture(stream, SWARM, alt, caption=caption)


def _offsets(a_N: np.ndarray, scale: float) -> np.ndarray:
    """[N] how far dots step aside for others in their place."""
    place_N = np.round(a_N / scale * BINS).astype(int)
    offset_N = np.zeros(len(a_N))
    crowded = max(1, np.unique(place_N, return_counts=True)[1].max(initial=1))
    for place in np.unique(place_N):
        at = np.flatnonzero(place_N == place)
        steps = (np.arange(len(at)) + 1) // 2 * np.where(np.arange(len(at)) % 2, 1, -1)
        offset_N[at] = steps * min(0.08, 0.8 / crowded)
    return offset_N


def bars(
    names: Sequence[str], values: Sequence[float], *, axis: str, title: str, alt: str, caption: str = ""
) -> Picture:
    """Draw a bar for each name, from above to below, blue to the right of zero and vermilion to the left."""
    with drawing(SMALL, 56 + ROW * max(1, len(names))) as (figure, stream):
        axes = figure.add_subplot()
        places = -np.arange(len(names))
        axes.barh(places, values, color=[BLUE if value >= 0 else ORANGE for value in values], height=0.7)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(places, [shortened(name, 26) for name in names])
        axes.set_ylim(-len(names) + 0.4, 0.6)
        axes.set_xlabel(axis)
        axes.locator_params(axis="x", nbins=4)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return picture(stream, SMALL, alt, title, caption)


def orders(shares: Sequence[float], curves: Mapping[str, np.ndarray], score: str) -> Picture:
    """Draw what becomes of a score as values are brought to the baseline, or back from it."""
    with drawing(SMALL, 220) as (figure, stream):
        axes = figure.add_subplot()
        for name, values in curves.items():
            colour = BLUE if name.startswith("insertion") else ORANGE
            random = name.endswith("random")
            axes.plot(shares, values, color=colour, linestyle="--" if random else "-", linewidth=1.4, label=name)
        axes.set(xlabel="share of values", ylabel="score, in spreads")
        axes.legend(frameon=False, fontsize=7)
    return picture(stream, SMALL, f"Deletion and insertion curves of {score}", score)
