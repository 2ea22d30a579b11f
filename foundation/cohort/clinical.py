"""The clinical table: who the patients are, and where they were treated."""

from __future__ import annotations

from pathlib import Path

from foundation.cohort.reading.repeated_rows import RepeatedRows, one_row_each
from foundation.cohort.reading.tables import Frame, find_column, mark_missing, no_patient, read_frames
from foundation.cohort.words import Missing, without
from foundation.config import Config
from foundation.errors import DataError
from foundation.wording import counted


class ClinicalTable(Config):
    """The table of patients: who they are, where they were treated, what became of them."""

    files: str
    patient: str = "patient"
    site: str | None = None
    missing: Missing = []
    repeated: RepeatedRows = "error"


def read_clinical(table: ClinicalTable, path: Path) -> Frame:
    """Read the table of patients as text.

    Args:
        table: Which columns hold the patient and the site, and what several rows of a patient mean.
        path: The file, ``{group}`` already filled in.

    Returns:
        A frame of str with one row per patient, in the order of the file; what is missing stays as written,
        but for the words of `missing`, which become empty.

    Raises:
        DataError: A column is missing, a row has no patient, or a patient appears twice.
    """
    import pandas as pd

    frame = pd.concat(list(read_frames(path)) or [pd.DataFrame()])
    if frame.empty:
        raise DataError("holds no patient", where=str(path), fix="name a table with a header and one row per patient")
    for column in filter(None, (table.patient, table.site)):
        find_column(column, list(frame.columns), path)
    frame = frame.assign(**{str(name): without(frame[name], table.missing) for name in frame.columns})
    patients = frame[table.patient].str.strip()
    if mark_missing(patients).any():
        raise no_patient(mark_missing(patients), table.patient, path)
    if table.repeated == "first":
        frame = one_row_each(frame, table.patient)
        patients = frame[table.patient]
    twice = patients[patients.duplicated()].unique()
    if len(twice):
        raise DataError(
            f"{counted(len(twice), 'patient')} with several rows, first '{twice[0]}'",
            where=str(path),
            fix="keep one row per patient, or set `repeated: first`: of each column a patient's first value counts",
        )
    return frame.assign(**{table.patient: patients}).reset_index(drop=True)
