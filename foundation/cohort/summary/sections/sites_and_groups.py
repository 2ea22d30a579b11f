"""The sections on sites and on groups: the share of each one's patients who have a modality, as a heat map."""

from __future__ import annotations

import numpy as np

from foundation.cohort.people import People
from foundation.report.page import Cell, Page
from foundation.wording import percent

MOST_SITES = 30


def add_presence_by(page: Page, people: People, what: str, of_patient: np.ndarray) -> None:
    """Add a heat map of the share of each one's patients who have a modality; nothing where none is known.

    Args:
        page: Changed.
        people: Of the cohort.
        what: ``site`` or ``group``.
        of_patient: [N] the one of each patient, empty where it is not known.
    """
    if not of_patient.astype(bool).any():
        return
    page.section(f"Modality by {what}")
    names, index, counts = np.unique(of_patient.astype(str), return_inverse=True, return_counts=True)
    having = np.zeros((len(names), people.present.shape[1]), dtype=np.int64)
    np.add.at(having, index, people.present)
    order = sorted(np.flatnonzero(names != ""), key=lambda row: (-counts[row], names[row]))
    rows = [_heat_row(str(names[row]), int(counts[row]), having[row]) for row in order[:MOST_SITES]]
    rest = order[MOST_SITES:]
    if rest:
        rows.append(_heat_row(f"{len(rest)} other {what}s", int(counts[rest].sum()), having[rest].sum(axis=0)))
    unknown = np.flatnonzero(names == "")
    if len(unknown):
        rows.append(_heat_row(f"{what} not known", int(counts[unknown[0]]), having[unknown[0]]))
    rows.append(_heat_row("all", len(people), people.present.sum(axis=0)))
    caption = f"Percent of the {what}'s patients who have the modality" + (
        f"; the {MOST_SITES} largest of {len(order)} {what}s, the others summed" if rest else ""
    )
    page.table([what, "patients", *people.cohort.modalities], rows, caption)


def _heat_row(name: str, patients: int, having: np.ndarray) -> list[str | int | Cell]:
    cells = [Cell(percent(int(count), patients), shade=int(count) / max(patients, 1)) for count in having]
    return [name, patients, *cells]
