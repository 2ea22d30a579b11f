"""The section on image intensities: a histogram of each channel's voxels and the bounds of the intensity rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from foundation.cohort.manifest import ImageEntry
from foundation.cohort.people import People, evenly
from foundation.cohort.store import PreparedCohort
from foundation.cohort.summary.figures.histograms import Panel, histogram
from foundation.report.page import Page, Picture
from foundation.wording import counted, percent

SAMPLED_SCANS = 60

SAMPLED_PLANES = 8

VOXELS_PER_PLANE = 2_000


def add_intensities(page: Page, people: People) -> None:
    """Add the pictures of each image modality; nothing where the cohort has none."""
    entries = people.manifest.modalities
    images = [name for name, entry in entries.items() if isinstance(entry, ImageEntry) and entry.patients]
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
        yield histogram(panel, alt=alt, caption=caption, counted="voxels")


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
