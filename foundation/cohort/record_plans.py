"""Records laid out before anything is read: one per patient and time point, with its scans, site, group, endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from foundation.cohort.endpoints import EndpointValues
from foundation.cohort.reading.cells import mark_missing
from foundation.cohort.sources.base import Scan
from foundation.cohort.spec import CohortSpec
from foundation.cohort.staging import StagedTable
from foundation.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd


class ScanChoice(NamedTuple):
    """A scan and the position, among its modality's sources, of the one that lists and reads it."""

    source: int
    scan: Scan


Listed = dict[tuple[str, str], dict[str, ScanChoice]]
"""(patient, time point) to channel to scan."""


@dataclass(frozen=True)
class RecordPlan:
    """One patient at one time point, before anything of it is read.

    Attributes:
        scans: Image modality to channel to the scan that holds it.
        endpoints: Columns below ``endpoint/`` to values; a missing one is left out.
        annotations: Annotation to its drawings.
    """

    patient: str
    time_point: str
    site: str | None
    group: str | None
    scans: dict[str, dict[str, ScanChoice]]
    endpoints: dict[str, float | int]
    annotations: dict[str, list[ScanChoice]]


GROUP = "chiasma group"
"""Column that remembers which group's table a patient came from; no source can have this name by accident."""


def lay_out(
    spec: CohortSpec,
    clinical: pd.DataFrame | None,
    endpoints: dict[str, EndpointValues],
    tables: dict[str, list[StagedTable]],
    scans: dict[str, Listed],
    annotations: dict[str, Listed],
) -> list[RecordPlan]:
    """One record per patient and time point, sorted; a patient without a scan has one record.

    What has no time point of its own, an image as well as omics, belongs to every record of the patient; annotations
    go with their image, whose patient and time point they are listed under.
    """
    patients = set() if clinical is None else set(clinical.index)
    patients |= {patient for staged in tables.values() for table in staged for patient in table.by_patient}
    time_points: dict[str, set[str]] = {patient: set() for patient in patients}
    for listed in scans.values():
        for patient, time_point in listed:
            time_points.setdefault(patient, set()).add(time_point)
    sites = _column(clinical, spec.clinical.site if spec.clinical else None)
    groups = _column(clinical, GROUP)
    values = {patient: {} for patient in time_points}
    for parsed in endpoints.values():
        for column, of_patient in parsed.columns().items():
            for patient, value in of_patient.items():
                values[patient][column] = value
    return [
        RecordPlan(
            patient=patient,
            time_point=time_point,
            site=sites.get(patient),
            group=groups.get(patient),
            scans={name: listed[key] for name, listed in scans.items() if (key := _key(listed, patient, time_point))},
            endpoints=values[patient],
            annotations={
                name: [listed[key][channel] for channel in sorted(listed[key])]
                for name, listed in annotations.items()
                if (key := _key(scans[spec.annotations[name].image], patient, time_point)) in listed
            },
        )
        for patient in sorted(time_points)
        for time_point in sorted(time_points[patient] - {""}) or [""]
    ]


def _key(listed: Listed, patient: str, time_point: str) -> tuple[str, str] | None:
    """Under which patient and time point the scans of a record are listed, None where there is none."""
    return next((key for key in ((patient, time_point), (patient, "")) if listed.get(key)), None)


def _column(clinical: pd.DataFrame | None, column: str | None) -> dict[str, str]:
    """A column of the clinical table as patient to text, the empty left out."""
    if clinical is None or column is None:
        return {}
    if column not in clinical:
        known = set(clinical.columns) - {GROUP}
        raise DataError(f"has no column '{column}'", where="clinical table", fix=nearest(column, known))
    stated = clinical[column].notna() & ~mark_missing(clinical[column])
    return dict(zip(clinical.index[stated].tolist(), clinical.loc[stated, column].tolist(), strict=True))
