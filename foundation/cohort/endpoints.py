"""Kinds of endpoint: configs in cohort.yaml, and what their values are in records and, counted, in cohort.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from foundation.config import Config

CENSORED = {"0": 0, "0.0": 0, "false": 0}
EVENTS = CENSORED | {"1": 1, "1.0": 1, "true": 1}
"""What an event may be written as, in lower case."""


class ClassEndpoint(Config):
    """Classes without an order (`subtype`) or with one, worst first as written (`response`)."""

    kind: Literal["subtype", "response"]
    column: str
    classes: dict[str, list[str]] = Field(
        description="Class to the values of the column that mean it, in order; a plain list names itself."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _a_list_names_itself(cls, classes: object) -> object:
        if isinstance(classes, list):
            return {str(name): [str(name)] for name in classes}
        if isinstance(classes, dict):
            return {str(k): [str(x) for x in (v if isinstance(v, list) else [v])] for k, v in classes.items()}
        return classes

    @model_validator(mode="after")
    def _each_value_once(self) -> ClassEndpoint:
        values = [value for meanings in self.classes.values() for value in meanings]
        if len(self.classes) < 2:
            raise ValueError("needs at least two classes")
        if len(values) != len(set(values)):
            raise ValueError("a value is listed in two classes")
        return self


class SurvivalEndpoint(Config):
    """Time to an event or to the last follow-up."""

    kind: Literal["survival"]
    time: str = Field(description="Column of the time, at least 0.")
    event: str = Field(description="Column of the event: 1 happened, 0 censored.")
    unit: Literal["days", "weeks", "months", "years"]
    causes: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Kinds of event of which a patient has the first, to the values of the event column that mean it.",
    )

    @field_validator("causes", mode="before")
    @classmethod
    def _a_single_value_is_a_list(cls, causes: object) -> object:
        if not isinstance(causes, dict):
            return causes
        return {str(k): [str(x) for x in (v if isinstance(v, list) else [v])] for k, v in causes.items()}

    @model_validator(mode="after")
    def _each_value_once(self) -> SurvivalEndpoint:
        values = [value.lower() for meanings in self.causes.values() for value in meanings]
        if len(self.causes) == 1:
            raise ValueError("one kind of event needs no `causes`")
        if len(values) != len(set(values)) or set(values) & set(CENSORED):
            raise ValueError("a value of `causes` is listed under two of them, or means censored")
        return self

    def codes(self) -> dict[str, int]:
        """What an event may be written as, in lower case, to 0 for censored or 1 and up for what happened."""
        if not self.causes:
            return EVENTS
        happened = {v.lower(): code for code, values in enumerate(self.causes.values(), start=1) for v in values}
        return CENSORED | happened


class NumberEndpoint(Config):
    """A number, such as a drug response."""

    kind: Literal["regression"]
    column: str
    unit: str = ""


Endpoint = Annotated[ClassEndpoint | SurvivalEndpoint | NumberEndpoint, Field(discriminator="kind")]


@dataclass
class EndpointValues:
    """An endpoint's values, one per patient of the clinical table.

    Attributes:
        name: Of the endpoint.
        endpoint: Its config.
        patients: N patients, in the order of the table.
        parts: For classes `code` [N] int64, -1 where missing; for survival `time` and `event` (0 censored, else
            the number of its cause from 1), for a number `value`, [N] float64, NaN where missing. A time and its event
            are missing together.
        incomplete: Patients with half a survival, counted as missing, and why.
    """

    name: str
    endpoint: Endpoint
    patients: list[str]
    parts: dict[str, np.ndarray]
    incomplete: list[tuple[str, str]] = field(default_factory=list)

    @property
    def known(self) -> np.ndarray:
        """Which patients have a value [N]."""
        first = next(iter(self.parts.values()))
        return first >= 0 if "code" in self.parts else ~np.isnan(first)

    def columns(self) -> dict[str, dict[str, float | int]]:
        """Columns of the record below ``endpoint/``, each a dict of the patients who have a value."""
        places = np.flatnonzero(self.known)
        patients = [self.patients[place] for place in places]
        columns = {}
        for part, values in self.parts.items():
            number = float if part in ("time", "value") else int
            name = f"{self.name}/{part}" if part in ("time", "event") else self.name
            columns[name] = dict(zip(patients, map(number, values[places]), strict=True))
        return columns

    def summary(self) -> dict[str, Any]:
        """Counts for cohort.json: classes, or events and median follow-up, or the spread of a number."""
        known = self.known
        counted: dict[str, Any] = {"kind": self.endpoint.kind, "patients": int(known.sum())}
        if isinstance(self.endpoint, ClassEndpoint):
            counts = np.bincount(self.parts["code"][known], minlength=len(self.endpoint.classes))
            counted["classes"] = dict(zip(self.endpoint.classes, map(int, counts), strict=True))
        elif isinstance(self.endpoint, SurvivalEndpoint):
            time, event = self.parts["time"][known], self.parts["event"][known]
            counted["events"] = int(np.sum(event > 0))
            if self.endpoint.causes:
                counts = np.bincount(event.astype(np.int64), minlength=1 + len(self.endpoint.causes))[1:]
                counted["causes"] = dict(zip(self.endpoint.causes, map(int, counts), strict=True))
            counted["median_follow_up"] = median_follow_up(time, event)
            counted["unit"] = self.endpoint.unit
            counted["incomplete"] = len(self.incomplete)
        else:
            value = self.parts["value"][known]
            counted |= {"mean": float(value.mean()), "min": float(value.min()), "max": float(value.max())}
            counted["sd"] = float(value.std(ddof=1)) if len(value) > 1 else None
            counted["unit"] = self.endpoint.unit
        return counted


def median_follow_up(time: np.ndarray, event: np.ndarray) -> float | None:
    """Median follow-up by the reverse Kaplan-Meier method, in which an event ends the observation of follow-up.

    Returns:
        The first time by which half were censored, or None where that is never reached.
    """
    from scipy.stats import CensoredData, ecdf

    censored = event == 0
    if not censored.any():
        return None
    survival = ecdf(CensoredData(uncensored=time[censored], right=time[~censored])).sf
    reached = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    return float(survival.quantiles[reached[0]]) if len(reached) else None
