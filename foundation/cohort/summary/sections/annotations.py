"""What is drawn on images: who was looked at, who has each region, what the stored image lost; and a few outlines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from foundation.cohort.manifest import AnnotationEntry, RegionEntry
from foundation.cohort.people import People, evenly
from foundation.cohort.summary.sections.slices import outlined
from foundation.report.drawing import PALETTE
from foundation.report.page import Cell, Page, TileRow
from foundation.wording import counted, listed

WALL_PATIENTS = 6

COLOURS = PALETTE[1:6]
"""Of regions, in turn; those of the palette that stand out from grey."""


def add_annotations(page: Page, people: People) -> None:
    """Add a section for each annotation; nothing where there is none."""
    for name, entry in people.manifest.annotations.items():
        page.section(f"Annotation: {name}", _what_it_is(entry))
        header = ["region", "looked for", "has it", "cut by the crop", "lost", "least share kept"]
        rows = [(region, *_counts(found)) for region, found in entry.regions.items()]
        page.table(header, rows, "Patients; a share is that of the voxels drawn on the source image.")
        shown = _sample(people, name)
        if len(shown):
            page.text(f"The slice with most of it, of {counted(len(shown), 'patient')}; {_colours(entry)}.")
            page.wall(_wall_rows(people, name, entry, shown))


def _what_it_is(entry: AnnotationEntry) -> str:
    drawn = "boxes around regions" if entry.drawn == "boxes" else "masks of regions"
    return (
        f"{counted(entry.patients, 'patient')} with {drawn} of {entry.image}. No model reads them as an input. In whom "
        "nobody looked for a region, nothing is known of it."
    )


def _counts(found: RegionEntry) -> tuple[int | Cell, ...]:
    least = "–" if found.least_kept is None else f"{found.least_kept:.3g}"
    return found.annotated, found.patients, found.cut, found.lost, Cell(least)


def _colours(entry: AnnotationEntry) -> str:
    names = ("orange-red", "green", "pink", "yellow", "light blue")
    return listed([f"{region} in {names[at % len(names)]}" for at, region in enumerate(entry.regions)])


def _sample(people: People, name: str) -> np.ndarray:
    """Rows of a few patients in whom there is a region, one each, evenly spaced."""
    kept_NR = people.cohort.kept_NR(name, np.arange(len(people.cohort)))
    rows = np.flatnonzero((kept_NR > 0).any(axis=1))
    _, first = np.unique(people.patient_of[rows], return_index=True)
    rows = rows[first]
    return rows[evenly(len(rows), WALL_PATIENTS)]


def _wall_rows(people: People, name: str, entry: AnnotationEntry, rows: np.ndarray) -> Iterator[TileRow]:
    image, cohort = people.cohort.image(entry.image), people.cohort
    acquired_NC = cohort.channels_NC(entry.image, rows)
    statistics_NC4 = cohort.statistics_NC4(entry.image, rows)
    for number, row in enumerate(rows.tolist()):
        voxels, annotation = cohort.voxels(entry.image, row), cohort.annotation(name, row)
        assert voxels is not None and annotation is not None, "who has a region has an image and an annotation"
        strips = []
        for at in np.flatnonzero(acquired_NC[number]).tolist():
            low, high = statistics_NC4[number, at, :2].tolist()
            channel = list(image.channels)[at]
            alt = f"{name} of patient {number + 1}, {channel}"
            strips.append((channel, [outlined(voxels[at], annotation.regions, image, low, high, COLOURS, alt)]))
        yield TileRow(f"patient {number + 1}", strips)
