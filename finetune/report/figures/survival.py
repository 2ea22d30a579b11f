"""Figures of predicted survival: curves by risk with the numbers at risk, and calibration at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from foundation.metrics.survival_curves import kaplan_meier, log_rank
from foundation.report.drawing import BLUE, GREEN, GREY, ORANGE, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import p_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RISKS = {"low risk": BLUE, "middle": GREEN, "high risk": ORANGE}
FEWEST_PER_RISK = 5
"""Patients in each third; with fewer there is one curve."""

FIFTHS = 5


def risk_groups(
    risk_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray, unit: str, title: str
) -> Picture:
    """Draw Kaplan-Meier curves of thirds of the risk, with Greenwood's bands, numbers at risk and the log-rank test.

    Thirds are taken within each group, and the test is stratified by group, so that a group of early deaths is not
    simply the high risk.

    Args:
        risk_N: [N], higher is worse.
        time_N: [N], in `unit`.
        event_N: [N], 1 happened, 0 censored.
        groups_N: [N] names.
        unit: Of the time axis.
        title: Stands above the figure.
    """
    third_N = thirds(risk_N, groups_N)
    here = [(name, third_N == number) for number, name in enumerate(RISKS) if (third_N == number).any()]
    _, p_value = log_rank(time_N, event_N.astype(np.float64), third_N, groups_N)
    horizon = float(time_N.max(initial=1.0))
    with drawing(SMALL, 330) as (figure, stream):
        axes = figure.add_subplot()
        for name, rows in here:
            _draw_curve(axes, time_N[rows], event_N[rows], name)
        axes.set(xlim=(0, horizon), ylim=(0, 1.02), ylabel="free of the event", xlabel=unit)
        axes.locator_params(axis="x", nbins=5)
        axes.legend(frameon=False, fontsize=8, loc="best")
        _write_at_risk(axes, [(name, time_N[rows]) for name, rows in here], horizon)
    p = "log-rank test: not possible" if np.isnan(p_value) else f"log-rank {p_text(p_value)}"
    numbers = "; ".join(f"{name} {int(rows.sum())} patients, {int(event_N[rows].sum())} events" for name, rows in here)
    alt = f"Kaplan-Meier curves of {title} by thirds of the predicted risk. {numbers}. {p}"
    caption = f"Thirds of the predicted risk with 95\u00a0% bands; {p}. Below the axis, patients at risk."
    return picture(stream, SMALL, alt, title, caption)


def thirds(risk_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each patient by the risk's rank within the group; 1 where a group is too small to divide."""
    third_N = np.ones(len(risk_N), dtype=np.int64)
    for group in np.unique(groups_N):
        rows = np.flatnonzero(groups_N == group)
        if len(rows) >= len(RISKS) * FEWEST_PER_RISK:
            third_N[rows] = np.searchsorted(np.quantile(risk_N[rows], [1 / 3, 2 / 3]), risk_N[rows])
    return third_N


def calibration_at(at: float, free_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, unit: str) -> Picture:
    """Draw observed (Kaplan-Meier) over predicted survival probability at a time, in fifths of patients.

    Args:
        at: The time.
        free_N: [N] survival probability then.
        time_N: [N], in `unit`.
        event_N: [N], true where it happened.
        unit: Of the time.
    """
    points = []
    for rows in np.array_split(np.argsort(free_N, kind="stable"), FIFTHS):
        if len(rows):
            free, low, high = (float(line[0]) for line in kaplan_meier(time_N[rows], event_N[rows]).at(np.array([at])))
            points.append((float(free_N[rows].mean()), free, *np.nan_to_num([low, high], nan=free)))
    predicted, observed, low, high = np.array(points).T
    with drawing(SMALL, 300) as (figure, stream):
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        error = np.maximum([observed - low, high - observed], 0)
        axes.errorbar(predicted, observed, yerr=error, fmt="o-", color=BLUE, markersize=5, linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="predicted survival probability", ylabel="observed (Kaplan-Meier)")
    told = "; ".join(f"{a:.2f} predicted, {b:.2f} observed" for a, b in zip(predicted, observed, strict=True))
    alt = f"Calibration at {at:g} {unit}, in fifths of the predicted probability: {told}"
    caption = (
        "Fifths of patients by predicted probability, with 95\u00a0% intervals; on the dashed line, predicted and "
        "observed agree."
    )
    return picture(stream, SMALL, alt, f"Calibration at {at:g} {unit}", caption)


def _draw_curve(axes: Axes, time: np.ndarray, event: np.ndarray, name: str) -> None:
    curve = kaplan_meier(time, event.astype(np.float64))
    times = np.append(curve.times, max(time.max(), curve.times[-1]))
    free, low, high = (np.append(line, line[-1]) for line in curve[1:])
    axes.fill_between(times, low, high, step="post", color=RISKS[name], alpha=0.15, linewidth=0)
    axes.step(times, free, where="post", color=RISKS[name], linewidth=1.6, label=name)


def _write_at_risk(axes: Axes, curves: list[tuple[str, np.ndarray]], horizon: float) -> None:
    """A row of numbers per curve below the axis: patients still under observation at each tick."""
    below = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8}
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= horizon]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for row, (name, time) in enumerate(curves):
        down = -40 - 12 * row
        for tick in ticks:
            axes.annotate(f"{int(np.sum(time >= tick)):,}", (tick, 0), (0, down), ha="center", **below)
        axes.annotate(name, (0, 0), (-14, down), ha="right", color=RISKS[name], **below)
