"""The clinical table: who the patients are, and where they were treated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from foundation.cohort.reading.cells import Column, mark_missing
from foundation.cohort.reading.damage import no_patient
from foundation.cohort.reading.repeated_rows import RepeatedRows, one_row_each
from foundation.cohort.reading.tables import Frame, column_names, find_column, read_frames
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


def read_clinical(table: ClinicalTable, path: Path, wanted: Sequence[str] = ()) -> Frame:
    """Read the table of patients as text.

    Args:
        table: Which columns hold the patient and the site, and what several rows of a patient mean.
        path: The file, ``{group}`` already filled in.
        wanted: Further columns that are to be read; they must not appear twice.

    Returns:
        A frame of str with one row per patient, in the order of the file, without blanks around cells; what is missing
        stays as written, but for the words of `missing`, which become empty. A column that appears twice is left out.

    Raises:
        DataError: A column is missing, or appears twice and is needed; a row has no patient, or a patient appears
            twice.
    """
    import pandas as pd

    names = Counter(column_names(path))
    for column in wanted:
        if names[column] > 1:
            find_column(column, list(names.elements()), path)
    frame = pd.concat(list(read_frames(path, _read(table, names))) or [pd.DataFrame()])
    if frame.empty:
        raise DataError("holds no patient", where=str(path), fix="name a table with a header and one row per patient")
    for column in filter(None, (table.patient, table.site)):
        find_column(column, list(frame.columns), path)
    frame = frame.assign(**{str(name): without(frame[name].str.strip(), table.missing) for name in frame.columns})
    patients: Column = frame[table.patient]
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


def _read(table: ClinicalTable, names: Counter[str]) -> list[str]:
    """Columns to read: those that appear once, and those of the patient and the site however often."""
    return [name for name, count in names.items() if count == 1 or name in (table.patient, table.site)]
