"""How a cohort's values and intensities are distributed, from a fixed sample of its patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from foundation.cohort.manifest import ImageEntry, OmicsEntry
from foundation.cohort.people import People, evenly
from foundation.cohort.store import PreparedCohort
from foundation.cohort.summary import pictures
from foundation.cohort.summary.pictures import Panel
from foundation.report.page import Page, Picture
from foundation.wording import counted, percent, shortened

SAMPLED_RECORDS = 200
SAMPLED_VALUES = 4_000_000
"""Values of an omics modality held at a time; of very wide tables fewer records are sampled."""
SAMPLED_SCANS = 60
SAMPLED_PLANES = 8
VOXELS_PER_PLANE = 2_000
FEW_FEATURES = 12
"""Up to so many features each have a histogram of their own."""


def add_distributions(page: Page, people: People) -> None:
    """Add the sections on omics values and on image intensities; nothing for what the cohort does not have."""
    entries = people.manifest.modalities
    omics = [name for name, entry in entries.items() if isinstance(entry, OmicsEntry) and entry.patients]
    images = [name for name, entry in entries.items() if isinstance(entry, ImageEntry) and entry.patients]
    if omics:
        page.section(
            "Values",
            f"Of at most {SAMPLED_RECORDS} patients per modality, evenly spaced over the cohort. Histograms of many "
            "values show the middle 99.8\u00a0% of them, so that outliers do not flatten the rest.",
        )
        page.figures([_omics_picture(people, name) for name in omics])
    if images:
        page.section(
            "Image intensities",
            f"Physical values of voxels sampled from at most {SAMPLED_SCANS} patients per modality. "
            "Dashed: the bounds of the intensity rule (median over all scans); shaded: where the bounds of the "
            "middle 90\u00a0% of scans lie.",
        )
    for name in images:
        page.subsection(name)
        page.figures(_intensity_pictures(people, name))


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
        return pictures.histograms(panels, alt=f"Histogram of each feature of {name}", title=name, caption=caption)
    if entry.values == "binary":
        ones = np.array(
            [100 * row[seen].mean() for row, seen in zip(values_NF, observed_NF, strict=True) if seen.any()]
        )
        panel = Panel(ones, "features that are 1, % of those measured", name)
        caption += (
            f" Median patient: {percent(float(np.median(ones)), 100)} of the features are 1." if len(ones) else ""
        )
        alt = f"Histogram of the share of ones per patient in {name}"
        return pictures.histogram(panel, alt=alt, caption=caption, counted="patients")
    return _pooled(name, entry, values_NF[observed_NF], caption)


def _pooled(name: str, entry: OmicsEntry, values: np.ndarray, caption: str) -> Picture:
    """One histogram over all features of a modality."""
    if len(values):
        caption += f" Values from {values.min():.3g} to {values.max():.3g}, median {np.median(values):.3g}."
    label = entry.unit or "value"
    if entry.values == "count":
        values, label = np.log1p(values), f"log(1 + {label})"
    panel = Panel(values, label, name)
    return pictures.histogram(panel, alt=f"Histogram of the values of {name}", caption=caption)


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


def _intensity_pictures(people: People, name: str) -> Iterator[Picture]:
    entry = people.cohort.image(name)
    rows = people.sample(name, SAMPLED_SCANS)
    samples = _sampled_voxels(people.cohort, name, rows)
    everyone = np.flatnonzero(people.cohort.present_NM[:, people.cohort.modalities.index(name)])
    statistics_NC4 = people.cohort.statistics_NC4(name, everyone)
    for position, channel in enumerate(entry.channels):
        values, background = samples[position]
        bounds_N2 = statistics_NC4[:, position, :2]
        bounds_N2 = bounds_N2[np.isfinite(bounds_N2).all(axis=1)]
        marks: dict[str, float] = {}
        bands: list[tuple[float, float]] = []
        if len(bounds_N2):
            low, high = np.median(bounds_N2, axis=0).tolist()
            marks = {"low": low, "high": high}
            bands = [(a, b) for a, b in np.quantile(bounds_N2, [0.05, 0.95], axis=0).T.tolist()]
        unit = "intensity (arbitrary units)" if entry.intensity.unit == "arbitrary" else entry.intensity.unit
        panel = Panel(values, unit, channel, marks, bands, np.dtype(entry.stored_as).kind in "iu", log=True)
        caption = _intensity_caption(entry.channels[channel], marks, background)
        alt = f"Histogram of the intensities of channel {channel} of {name}"
        yield pictures.histogram(panel, alt=alt, caption=caption, counted="voxels")


def _intensity_caption(patients: int, marks: Mapping[str, float], background: float) -> str:
    caption = f"{counted(patients, 'patient')}."
    if marks:
        caption += f" Bounds {marks['low']:.3g} to {marks['high']:.3g}."
    if background:
        caption += (
            f" {percent(background, 1)} of voxels have the lowest value of their scan (background) and are not drawn."
        )
    return caption


def _sampled_voxels(cohort: PreparedCohort, name: str, rows: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Per channel the sampled values, and the share of background that was taken out of them."""
    acquired_NC = cohort.channels_NC(name, rows)
    sampled: list[list[np.ndarray]] = [[] for _ in cohort.image(name).channels]
    for row, acquired_C in zip(rows, acquired_NC, strict=True):
        voxels = cohort.voxels(name, int(row))
        assert voxels is not None, "only records with the image are sampled"
        for channel in np.flatnonzero(acquired_C):
            # Whole planes at a few places: the rest of the file is never read.
            planes = [plane.ravel() for plane in voxels[channel][evenly(voxels.shape[1], SAMPLED_PLANES)]]
            values = np.concatenate([plane[evenly(len(plane), VOXELS_PER_PLANE)] for plane in planes])
            sampled[channel].append(values.astype(np.float32))
    return [_without_background(scans) for scans in sampled]


def _without_background(scans: list[np.ndarray]) -> tuple[np.ndarray, float]:
    if not scans:
        return np.empty(0, dtype=np.float32), 0.0
    lowest = [scan == scan.min() for scan in scans]
    share = float(np.mean(np.concatenate(lowest)))
    if share < 0.05 or share == 1.0:
        return np.concatenate(scans), 0.0
    return np.concatenate([scan[~low] for scan, low in zip(scans, lowest, strict=True)]), share
