"""Figures of predicted numbers: predicted over true values."""

from __future__ import annotations

import numpy as np

from foundation.report.drawing import BLUE, GREY, SMALL, drawing, picture
from foundation.report.page import Picture


def scatter(value_N: np.ndarray, guess_N: np.ndarray, label: str) -> Picture:
    """Draw predicted over true values."""
    ends = (min(value_N.min(), guess_N.min()), max(value_N.max(), guess_N.max())) if len(value_N) else (0.0, 1.0)
    with drawing(SMALL, 300) as (figure, stream):
        axes = figure.add_subplot()
        axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
        axes.scatter(value_N, guess_N, s=14, alpha=0.6, color=BLUE, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted")
    alt = f"Predicted over true {label} of {len(value_N):,} patients"
    return picture(stream, SMALL, alt, label, "On the dashed line, predicted and true values agree.")
