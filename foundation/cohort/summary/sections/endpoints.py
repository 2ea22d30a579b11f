"""The section on endpoints: who has each one and which modalities, and classes, numbers and survival in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from foundation.cohort.endpoints import median_follow_up
from foundation.cohort.manifest import Manifest
from foundation.cohort.people import People
from foundation.cohort.summary.figures.classes import class_bars
from foundation.cohort.summary.figures.histograms import Panel, histogram
from foundation.cohort.summary.figures.survival import survival_plot
from foundation.metrics.survival_curves import kaplan_meier
from foundation.report.page import Cell, Page, Picture
from foundation.wording import counted

MOST_GROUPS = 12


def add_endpoints(page: Page, people: People) -> None:
    """Add a table of all endpoints and pictures of each; nothing where the cohort has none."""
    if not people.manifest.endpoints:
        return
    page.section("Endpoints", _how_to_read(people.manifest))
    rows = []
    for name, entry in people.manifest.endpoints.items():
        known = _is_known(people.endpoint(name))
        overlap = people.present[known].sum(axis=0).tolist()
        cells = [Cell(f"{count:,}", shade=count / max(len(people), 1)) for count in overlap]
        rows.append((name, entry["kind"], int(known.sum()), *cells))
    header = ["endpoint", "kind", "patients", *(f"and {name}" for name in people.cohort.modalities)]
    page.table(header, rows, "Patients whose endpoint is known, and how many of them have each modality")
    for name, entry in people.manifest.endpoints.items():
        if entry.get("incomplete"):
            halves = counted(entry["incomplete"], "patient has", "patients have")
            page.text(f"{name}: {halves} only a time or only an event, which counts as not known.")
    drawn = {name: _endpoint_pictures(people, name, entry) for name, entry in people.manifest.endpoints.items()}
    if any(len(figures) > 1 for figures in drawn.values()):
        for name, figures in drawn.items():
            page.subsection(name)
            page.figures(figures)
    else:
        page.figures(figure for figures in drawn.values() for figure in figures)


def _endpoint_pictures(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    if entry["kind"] == "survival":
        return _survival(people, name, entry)
    return _number(people, name, entry) if entry["kind"] == "regression" else _classes(people, name, entry)


def _how_to_read(manifest: Manifest) -> str:
    kinds = {entry["kind"] for entry in manifest.endpoints.values()}
    if "survival" not in kinds:
        return ""
    words = "Survival is drawn by Kaplan-Meier with its 95\u00a0% confidence band and the number of patients at risk"
    if not manifest.groups:
        return words + "."
    words += ", each group by itself, never pooled"
    left_out = len(manifest.groups) - MOST_GROUPS
    return words + (f"; the {MOST_GROUPS} largest groups, {left_out} are left out." if left_out > 0 else ".")


def _is_known(values: Mapping[str, np.ndarray]) -> np.ndarray:
    if "code" in values:
        return values["code"] >= 0
    return ~np.any([np.isnan(part) for part in values.values()], axis=0)


def _classes(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    classes = {str(label): int(count) for label, count in entry["classes"].items()}
    missing = len(people) - sum(classes.values())
    ordered = " In order." if entry["kind"] == "response" else ""
    caption = f"{counted(sum(classes.values()), 'patient')}; percent of those whose class is known.{ordered}"
    alt = f"Bars of the classes of {name}: " + ", ".join(f"{label} {count}" for label, count in classes.items())
    return [class_bars(classes, missing, alt=alt, title=name, caption=caption)]


def _number(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    values = people.endpoint(name)["value"]
    values = values[np.isfinite(values)]
    caption = f"{counted(len(values), 'patient')} of {len(people):,}."
    if len(values):
        caption += f" From {values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}."
    panel = Panel(values, entry.get("unit") or "value", name)
    return [histogram(panel, alt=f"Histogram of {name}", caption=caption, counted="patients")]


PER_YEAR = {"days": 365.25, "weeks": 365.25 / 7, "months": 12.0, "years": 1.0}


def _survival(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    """A Kaplan-Meier curve, or one per group: patients of different groups are never pooled."""
    values = people.endpoint(name)
    known = _is_known(values)
    if not known.any():
        return []
    time, group = values["time"][known], people.groups[known].astype(str)
    # Of competing events, whichever came first.
    event = (values["event"][known] > 0).astype(np.float64)
    unit = entry.get("unit", "")
    if unit in PER_YEAR and time.max() >= 3 * PER_YEAR[unit]:
        time, unit = time / PER_YEAR[unit], "years"
    names, counts = np.unique(group, return_counts=True)
    order = sorted(range(len(names)), key=lambda position: (-counts[position], names[position]))
    drawn = []
    # The time axis ends where a hundredth is still under observation: the last few patients tell nothing.
    horizon = float(np.quantile(time, 0.99)) or 1.0
    for position in order[:MOST_GROUPS]:
        here = group == names[position]
        label = f"{name}, {names[position] or 'group not known'}" if len(names) > 1 else name
        drawn.append(_curve(time[here], event[here], horizon=horizon, unit=unit, title=label))
    return drawn


def _curve(time: np.ndarray, event: np.ndarray, *, horizon: float, unit: str, title: str) -> Picture:
    curve = kaplan_meier(time, event)
    middle, early, late = (curve.median(line) for line in (curve.free, curve.low, curve.high))
    watched = median_follow_up(time, event)
    words = f"{counted(len(time), 'patient')}, {counted(int(event.sum()), 'event')}."
    if np.isnan(middle):
        words += " Median time to the event not reached."
    else:
        until = "not reached" if np.isnan(late) else f"{late:.3g}"
        interval = "" if np.isnan(early) else f" (95\u00a0% interval {early:.3g} to {until})"
        words += f" Median time to the event {middle:.3g} {unit}{interval}."
    if watched is not None:
        words += f" Median follow-up {watched:.3g} {unit} (reverse Kaplan-Meier)."
    alt = f"Kaplan-Meier curve of {title}. {words}"
    return survival_plot(time, event, horizon=horizon, unit=unit, alt=alt, title=title, caption=words)
