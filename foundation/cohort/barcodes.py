"""Sample barcodes to patients: which samples count, and which of a patient's several samples is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator

from foundation.config import Config
from foundation.errors import DataError

SEPARATORS = re.compile(r"[-_. ]")
"""What stands between the parts of a barcode."""


class Normalise(Config):
    """How barcodes that differ in case or separators alone become one."""

    case: Literal["upper", "lower"] | None = Field(
        default=None, description="Which case all letters get; none stays as written."
    )
    separators: Literal["-", "_", "."] | None = Field(
        default=None, description="What each hyphen, underscore, dot and blank becomes; none stays as written."
    )

    def __call__(self, barcode: str) -> str:
        """The barcode in this case and with these separators, without blanks around it."""
        if self.separators is not None:
            barcode = SEPARATORS.sub(self.separators, barcode.strip())
        return getattr(barcode, self.case)() if self.case else barcode


class PatientRule(Config):
    """How a barcode names its patient (`patients:` in cohort.yaml)."""

    barcode: str = Field(
        default=r"(?P<patient>.+)",
        description="Regular expression matched at the start of a barcode; the group `patient` is required, "
        "`sample_type` and `vial` are optional.",
    )
    normalise: Normalise = Field(
        default=Normalise(),
        description="Case and separators of every barcode, folder name and row before `barcode` is matched: "
        "{case: upper, separators: '-'}, or true for these two, makes tcga.02.0001 and TCGA-02-0001 one patient.",
    )
    leave_out: list[str] = Field(default=[], description="Sample types that are no tumour, such as TCGA's 10 and 11.")
    primary: list[str] = Field(
        default=[], description="Sample types in order of preference; others come after, sorted."
    )
    several: Literal["primary_first", "mean"] = Field(
        default="primary_first",
        description="One sample per patient (type by `primary`, then lowest vial), or the mean.",
    )

    @field_validator("normalise", mode="before")
    @classmethod
    def _true_is_short_for_the_usual(cls, normalise: object) -> object:
        return {"case": "upper", "separators": "-"} if normalise is True else normalise

    @field_validator("barcode")
    @classmethod
    def _names_a_patient(cls, barcode: str) -> str:
        try:
            groups = re.compile(barcode).groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if "patient" not in groups:
            raise ValueError("has no group (?P<patient>…)")
        return barcode

    def patient(self, barcode: str) -> str | None:
        """The patient a barcode belongs to, or None where the expression does not match."""
        match = re.match(self.barcode, self.normalise(barcode))
        return match.group("patient") if match else None

    def refuse_merged(self, barcodes: Iterable[str], *, where: str) -> None:
        """Refuse different barcodes of one source that `normalise` makes the same.

        Args:
            barcodes: As they are written.
            where: The source, for messages.

        Raises:
            DataError: There are two; it names them.
        """
        written: dict[str, str] = {}
        for barcode in dict.fromkeys(barcodes):
            other = written.setdefault(self.normalise(barcode), barcode)
            if other != barcode:
                raise DataError(
                    f"'{other}' and '{barcode}' are both '{self.normalise(barcode)}' after patients.normalise",
                    where=where,
                    fix="rename one where they are different patients or samples; write them alike where they are one",
                )

    def assign(self, samples: Sequence[str], *, where: str) -> Assignment:
        """Sort samples to patients and choose among several of one patient.

        Args:
            samples: Barcodes in the order of the table.
            where: The table, for messages.

        Raises:
            DataError: A barcode appears twice, two become one, or none matches the expression.
        """
        twice = [sample for sample, count in Counter(samples).items() if count > 1]
        if twice:
            raise DataError(
                f"{len(twice)} samples appear twice, first '{twice[0]}'",
                where=where,
                fix="keep one row or column per sample",
            )
        self.refuse_merged(samples, where=where)
        expression = re.compile(self.barcode)
        assignment = Assignment()
        candidates: dict[str, list[tuple[tuple, int]]] = {}
        for position, sample in enumerate(samples):
            barcode = self.normalise(sample)
            match = expression.match(barcode)
            if match is None or not match.group("patient"):
                assignment.unmatched.append(sample)
                continue
            named = match.groupdict()
            if named.get("sample_type") in self.leave_out:
                assignment.left_out.append(sample)
                continue
            candidates.setdefault(named["patient"], []).append((self._rank(barcode, named), position))
        if samples and len(assignment.unmatched) == len(samples):
            raise DataError(
                f"none of {len(samples)} barcodes matches the patient rule, first '{samples[0]}'",
                where=where,
                fix=f"correct patients.barcode, now {self.barcode!r}, or the orientation of the table",
            )
        for patient in sorted(candidates):
            ranked = [position for _, position in sorted(candidates[patient])]
            assignment.by_patient[patient] = ranked if self.several == "mean" else ranked[:1]
        return assignment

    def _rank(self, sample: str, named: dict[str, str | None]) -> tuple:
        kind = named.get("sample_type") or ""
        order = self.primary.index(kind) if kind in self.primary else len(self.primary)
        return order, kind, named.get("vial") or "", sample


@dataclass
class Assignment:
    """Which samples of a table serve which patient.

    Attributes:
        by_patient: Patient to positions in the table; several only for the mean.
        unmatched: Barcodes that the expression does not match.
        left_out: Barcodes whose sample type is left out.
    """

    by_patient: dict[str, list[int]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
