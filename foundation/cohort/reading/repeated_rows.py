"""Tables of patients with several rows of one, such as one for each diagnosis: made one row each by a stated rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foundation.cohort.reading.cells import mark_missing
from foundation.cohort.reading.tables import Frame

RepeatedRows = Annotated[
    Literal["error", "first"],
    Field(description="Several rows of a patient: an error, or of each column the first that has a value."),
]


def one_row_each(frame: Frame, patient: str) -> Frame:
    """The first value of each column that every patient has, empty where there is none.

    Args:
        frame: Text, several rows of a patient allowed.
        patient: Column that names the patient.

    Returns:
        A row for each patient, in the order and under the number of their first.
    """
    who = frame[patient].str.strip()
    known = frame.mask(frame.apply(mark_missing))
    first = known.groupby(who.to_numpy(), sort=False).first().fillna("")
    return first.assign(**{patient: first.index}).set_index(frame.index[~who.duplicated()])[list(frame.columns)]
