"""Columns of the clinical table parsed into codes, times and events of an endpoint; all that fails is told at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foundation.cohort.endpoints import UNKNOWN_EVENTS, ClassEndpoint, Endpoint, EndpointValues, SurvivalEndpoint
from foundation.cohort.reading.cells import Column, mark_missing, parse_numbers
from foundation.cohort.reading.tables import Frame
from foundation.cohort.words import Meanings, count_values, without
from foundation.errors import DataError, nearest


def parse_endpoints(endpoints: Mapping[str, Endpoint], table: Frame, patient_column: str) -> dict[str, EndpointValues]:
    """Parse and check all endpoints of a cohort.

    Raises:
        DataError: As of `parse_endpoint`, of all endpoints at once.
    """
    parsed, refused = {}, []
    for name, endpoint in endpoints.items():
        try:
            parsed[name] = parse_endpoint(name, endpoint, table, patient_column)
        except DataError as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        first, *others = refused
        what = "\n  ".join([first.what, *(f"{error.where}: {error.what}" for error in others)])
        raise DataError(what, where=first.where, fix="; ".join(dict.fromkeys(error.fix for error in refused)))
    return parsed


def parse_endpoint(name: str, endpoint: Endpoint, table: Frame, patient_column: str) -> EndpointValues:
    """Parse and check one endpoint.

    Args:
        name: Of the endpoint.
        endpoint: Its config.
        table: Clinical table of str.
        patient_column: Column that names the patient.

    Raises:
        DataError: A column is missing, a value cannot be, or no patient has one; it names all of these at once.
    """
    patients = table[patient_column].tolist()
    parser = _Parser(name, endpoint, table, patients)
    incomplete = []
    if isinstance(endpoint, ClassEndpoint):
        parts = {"code": parser.classes(endpoint)}
    elif isinstance(endpoint, SurvivalEndpoint):
        parts = {"time": parser.times(endpoint.time), "event": parser.events(endpoint)}
        incomplete = _complete_pairs(parts, endpoint, patients)
    else:
        parts = {"value": parser.numbers(endpoint.column)}
    parser.refuse_problems()
    values = EndpointValues(name, endpoint, patients, parts, incomplete)
    if not values.known.any():
        raise DataError(
            f"no patient of {len(patients)} has a value",
            where=f"endpoint '{name}'",
            fix="check its columns, or remove it",
        )
    return values


def _complete_pairs(
    parts: dict[str, np.ndarray], endpoint: SurvivalEndpoint, patients: list[str]
) -> list[tuple[str, str]]:
    """Take away times without an event and events without a time; says whose."""
    no_time, no_event = np.isnan(parts["time"]), np.isnan(parts["event"])
    time = _said(endpoint.time)
    half = [
        (patients[place], f"has '{endpoint.event}' but no '{time}'")
        if no_time[place]
        else (patients[place], f"has '{time}' but no '{endpoint.event}'")
        for place in np.flatnonzero(no_time != no_event)
    ]
    for values in parts.values():
        values[no_time | no_event] = np.nan
    return half


def _said(column: str | list[str]) -> str:
    return column if isinstance(column, str) else " or ".join(column)


class _Parser:
    """Columns of one endpoint; gathers what is wrong in all of them before it refuses."""

    def __init__(self, name: str, endpoint: Endpoint, table: Frame, patients: list[str]) -> None:
        self.where = f"endpoint '{name}'"
        self.missing = endpoint.missing
        self.table = table
        self.patients = np.array(patients, dtype=object)
        self.problems: list[str] = []
        self.fixes: list[str] = []

    def classes(self, endpoint: ClassEndpoint) -> np.ndarray:
        """Codes, -1 where missing."""
        text = self._column(endpoint.column)
        code_of = {value: code for code, meant in enumerate(endpoint.classes.values()) for value in meant}
        codes = Meanings(code_of).of(text)
        unknown = ~mark_missing(text) & np.isnan(codes)
        if unknown.any():
            hints = [f"'{value}': {nearest(value, code_of)}" for value in text[unknown].unique()[:3]]
            self._refuse(
                unknown,
                text,
                "is no declared class",
                f"list it under its class in `classes`, in `missing` where it says that nothing is known, or mend it "
                f"({'; '.join(hints)})",
            )
        return np.where(np.isnan(codes), -1, codes).astype(np.int64)

    def numbers(self, column: str | list[str]) -> np.ndarray:
        """Numbers, NaN where missing."""
        import pyarrow as pa

        text = self._column(column)
        numbers, bad = parse_numbers(pa.array(text, pa.string()))
        if bad.any():
            self._refuse(
                bad,
                text,
                "is not a finite number",
                "mend these rows, or list in `missing` what says that nothing is known",
            )
        return numbers.copy()

    def times(self, column: str | list[str]) -> np.ndarray:
        """Times at least 0, NaN where missing."""
        times = self.numbers(column)
        text = self._column(column)
        if (times < 0).any():
            self._refuse(
                times < 0,
                text,
                "is negative",
                "times count from diagnosis or treatment: mend these rows, or list in `missing` what means nothing",
            )
        return times

    def events(self, endpoint: SurvivalEndpoint) -> np.ndarray:
        """0 or the number of the cause, NaN where missing."""
        text = self._column(endpoint.event)
        codes = {word: endpoint.code(word) for word in text[~mark_missing(text)].unique()}
        unknown = [word for word, code in codes.items() if code is None and word.lower() not in UNKNOWN_EVENTS]
        if unknown and endpoint.causes:
            self._refuse(
                text.isin(unknown),
                text,
                "is no declared cause, nor 0",
                "list it under its cause in `causes`, in `censored`, in `missing` where nothing is known, or mend it",
            )
        elif unknown:
            listed = "list it in `happened`, in `censored`, or in `missing` where nothing is known"
            if set(codes) <= {"1", "2", "1.0", "2.0"}:
                listed = "R's 1 and 2 are `censored: [1]` and `happened: [2]`; otherwise " + listed
            self._refuse(text.isin(unknown), text, "is no event that is known, such as 1 or 0", listed)
        return text.map(codes).to_numpy(np.float64)

    def refuse_problems(self) -> None:
        """Raise one DataError where anything was wrong."""
        if self.problems:
            raise DataError("; ".join(self.problems), where=self.where, fix="; ".join(dict.fromkeys(self.fixes)))

    def _column(self, column: str | list[str]) -> Column:
        """A column as words; of several, each patient's first that is not missing."""
        names = [column] if isinstance(column, str) else column
        for name in names:
            if name not in self.table:
                raise DataError(
                    f"the clinical table has no column '{name}'",
                    where=self.where,
                    fix=nearest(name, map(str, self.table.columns)),
                )
        first, *others = (without(self.table[name].str.strip(), self.missing) for name in names)
        for other in others:
            first = first.mask(mark_missing(first), other)
        return first.rename(_said(column))

    def _refuse(self, wrong: np.ndarray | Column, text: Column, what: str, fix: str) -> None:
        rows = np.asarray(wrong)
        self.problems.append(
            f"column '{text.name}': {count_values(text.to_numpy()[rows], self.patients[rows].tolist())} {what}"
        )
        self.fixes.append(fix)
