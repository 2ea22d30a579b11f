"""Kinds of endpoint: configs in cohort.yaml, and what their values are in records and, counted, in cohort.json."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from foundation.cohort.words import Missing, Words, as_words, refuse_two_meanings, same, same_in_any_case
from foundation.config import Config

KNOWN = {
    **dict.fromkeys(("0", "false", "living", "alive", "diseasefree", "censored"), 0),
    **dict.fromkeys(("1", "true", "deceased", "dead", "recurred/progressed", "progression"), 1),
}
"""What portals and programs write for an event, in lower case, to 1 where it happened and 0 where it was censored."""

UNKNOWN_EVENTS = ("unknown", "not allowed to collect")
"""What the GDC writes where it is not known whether somebody lives, in lower case; of a class it may be one."""

PREFIXED = re.compile(r"([01])\s*:\s*(.*)")
"""An event with its number before it, as cBioPortal writes it: `1:DECEASED`, `0:LIVING`."""


def known_event(word: str) -> int | None:
    """Whether a word says that an event happened (1) or not (0) without being explained; None where it does not.

    A number that its own word contradicts, such as `0:DECEASED`, says nothing.
    """
    meanings = {same(known): event for known, event in KNOWN.items()}
    prefixed = PREFIXED.fullmatch(word.strip())
    if prefixed is None:
        return meanings.get(same_in_any_case(word))
    event = int(prefixed[1])
    return event if meanings.get(same_in_any_case(prefixed[2]), event) == event else None


class EndpointConfig(Config):
    """What every endpoint states."""

    missing: Missing = []


class ClassEndpoint(EndpointConfig):
    """Classes without an order (`subtype`) or with one, worst first as written (`response`)."""

    kind: Literal["subtype", "response"]
    column: str
    classes: dict[str, Words] = Field(
        description="Class to the values of the column that mean it, in order; a plain list names itself."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _a_list_names_itself(cls, classes: object) -> object:
        if isinstance(classes, list):
            return {name: [name] for name in as_words(classes)}
        return {str(name): values for name, values in classes.items()} if isinstance(classes, dict) else classes

    @model_validator(mode="after")
    def _each_value_once(self) -> ClassEndpoint:
        if len(self.classes) < 2:
            raise ValueError("needs at least two classes")
        refuse_two_meanings({f"the class '{name}'": words for name, words in self.classes.items()}, any_case=False)
        refuse_two_meanings({"`classes`": self.words(), "`missing`": self.missing})
        return self

    def columns(self) -> list[str]:
        """Columns of the clinical table that it is read from."""
        return [self.column]

    def words(self) -> list[str]:
        """Values of the column that mean a class."""
        return [word for words in self.classes.values() for word in words]


class SurvivalEndpoint(EndpointConfig):
    """Time to an event or to the last follow-up."""

    kind: Literal["survival"]
    time: str | list[str] = Field(
        description="Column of the time, at least 0; or several, of which a patient's first with a value counts, such "
        "as days to death, then to the last follow-up."
    )
    event: str = Field(
        description="Column of the event: 1 happened, 0 censored, or as portals write it, such as 1:DECEASED."
    )
    unit: Literal["days", "weeks", "months", "years"]
    happened: Words = Field(
        [],
        description="Words of the event column, in whatever case, for an event that happened, such as R's 2; where "
        "there are any, 1 is none of them unless it is listed.",
    )
    censored: Words = Field(
        [],
        description="Words of the event column, in whatever case, for a censored patient, such as R's 1; where there "
        "are any, 0 is none of them unless it is listed.",
    )
    causes: dict[str, Words] = Field(
        default_factory=dict,
        description="Kinds of event of which a patient has the first, to the values of the event column that mean it.",
    )

    @field_validator("causes", mode="before")
    @classmethod
    def _names_are_text(cls, causes: object) -> object:
        return {str(name): values for name, values in causes.items()} if isinstance(causes, dict) else causes

    @model_validator(mode="after")
    def _each_value_once(self) -> SurvivalEndpoint:
        causes = {f"the cause '{name}' of `causes`": words for name, words in self.causes.items()}
        if len(self.causes) == 1:
            raise ValueError("one kind of event needs no `causes`")
        if causes and self.happened:
            raise ValueError("`causes` already says what happened: leave out `happened`")
        for name, words in causes.items():
            for word in words:
                if known_event(word) == 0:
                    raise ValueError(f"'{word}' under {name} means censored, and is read so: leave it out")
        for name, words, other in (("happened", self.happened, 0), ("censored", self.censored, 1)):
            for word in words:
                # A bare number or truth value may be coded either way; a word says what it says.
                if known_event(word) == other and same_in_any_case(word) not in (0, 1, "true", "false"):
                    raise ValueError(f"'{word}' under `{name}` says the opposite")
        refuse_two_meanings(
            {**causes, "`happened`": self.happened, "`censored`": self.censored, "`missing`": self.missing}
        )
        return self

    def columns(self) -> list[str]:
        """Columns of the clinical table that it is read from."""
        return [*([self.time] if isinstance(self.time, str) else self.time), self.event]

    def words(self) -> list[str]:
        """Values of the event column that the YAML explains."""
        return [*self.happened, *self.censored, *(word for words in self.causes.values() for word in words)]

    def code(self, word: str) -> int | None:
        """0 for censored, 1 and up for the kind of event that happened, None where a word is neither."""
        given = dict.fromkeys(map(same_in_any_case, self.censored), 0)
        for number, words in enumerate(self.causes.values() if self.causes else [self.happened], start=1):
            given |= dict.fromkeys(map(same_in_any_case, words), number)
        if same_in_any_case(word) in given:
            return given[same_in_any_case(word)]
        event = known_event(word)
        if event == 1 and self.causes:
            return None
        listed = self.happened if event else self.censored
        # A number with its word after it stays clear; a bare one means nothing but what the YAML says of it.
        return event if not listed or PREFIXED.fullmatch(word.strip()) else None


class NumberEndpoint(EndpointConfig):
    """A number, such as a drug response."""

    kind: Literal["regression"]
    column: str
    unit: str = ""

    def columns(self) -> list[str]:
        """Columns of the clinical table that it is read from."""
        return [self.column]


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
