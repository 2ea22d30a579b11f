"""The section on omics values: histograms over a fixed sample of patients, and how much was not measured."""

from __future__ import annotations

import numpy as np

from foundation.cohort.manifest import OmicsEntry
from foundation.cohort.people import People
from foundation.cohort.summary.figures.histograms import Panel, histogram, histograms
from foundation.report.page import Page, Picture
from foundation.wording import counted, percent, shortened

SAMPLED_RECORDS = 200

SAMPLED_VALUES = 4_000_000
"""Values of an omics modality held at a time; of very wide tables fewer records are sampled."""

FEW_FEATURES = 12
"""Up to so many features each have a histogram of their own."""


def add_values(page: Page, people: People) -> None:
    """Add a picture of each omics modality; nothing where the cohort has none."""
    entries = people.manifest.modalities
    omics = [name for name, entry in entries.items() if isinstance(entry, OmicsEntry) and entry.patients]
    if omics:
        page.section(
            "Values",
            f"Of at most {SAMPLED_RECORDS} patients per modality, evenly spaced over the cohort. Histograms of many "
            "values show the middle 99.8\u00a0% of them, so that outliers do not flatten the rest.",
        )
        page.figures([_omics_picture(people, name) for name in omics])


def _omics_picture(people: People, name: str) -> Picture:
    entry = people.cohort.omics(name)
    most = max(8, min(SAMPLED_RECORDS, SAMPLED_VALUES // max(entry.features, 1)))
    rows = people.sample(name, most)
    values_NF = people.cohort.values_NF(name, rows)
    observed_NF = ~np.isnan(values_NF)
    caption = _observed(observed_NF, entry)
    if entry.features <= FEW_FEATURES:
        panels = [
            Panel(
                column[seen],
                title=f"{shortened(feature)} ({percent(int(seen.sum()), len(rows))} measured)",
            )
            for feature, column, seen in zip(people.cohort.features[name], values_NF.T, observed_NF.T, strict=True)
        ]
        return histograms(panels, alt=f"Histogram of each feature of {name}", title=name, caption=caption)
    if entry.values == "binary":
        ones = np.array(
            [100 * row[seen].mean() for row, seen in zip(values_NF, observed_NF, strict=True) if seen.any()]
        )
        panel = Panel(ones, "features that are 1, % of those measured", name)
        caption += (
            f" Median patient: {percent(float(np.median(ones)), 100)} of the features are 1." if len(ones) else ""
        )
        alt = f"Histogram of the share of ones per patient in {name}"
        return histogram(panel, alt=alt, caption=caption, counted="patients")
    return _pooled(name, entry, values_NF[observed_NF], caption)


def _pooled(name: str, entry: OmicsEntry, values: np.ndarray, caption: str) -> Picture:
    """One histogram over all features of a modality."""
    if len(values):
        caption += f" Values from {values.min():.3g} to {values.max():.3g}, median {np.median(values):.3g}."
    label = entry.unit or "value"
    if entry.values == "count":
        values, label = np.log1p(values), f"log(1 + {label})"
    panel = Panel(values, label, name)
    return histogram(panel, alt=f"Histogram of the values of {name}", caption=caption)


def _observed(observed_NF: np.ndarray, entry: OmicsEntry) -> str:
    """What is measured, in words."""
    missing_N = 1 - observed_NF.mean(axis=1)
    never = int((~observed_NF.any(axis=0)).sum())
    sampled = f"{len(observed_NF):,} of {counted(entry.patients, 'patient')}, {counted(entry.features, 'feature')}."
    if not missing_N.any():
        return f"{sampled} Every value is measured."
    mean, worst = percent(missing_N.mean(), 1), percent(missing_N.max(), 1)
    words = f"{sampled} Not measured: {mean} of values, {worst} in the patient who lacks most."
    return words + (f" {counted(never, 'feature')} measured in none of them." if never else "")
