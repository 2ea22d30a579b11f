"""Sample barcodes to patients: which samples count, and which of a patient's several samples is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator

from foundation.config import Config
from foundation.errors import DataError


class PatientRule(Config):
    """How a barcode names its patient (`patients:` in cohort.yaml)."""

    barcode: str = Field(
        default=r"(?P<patient>.+)",
        description="Regular expression matched at the start of a barcode; the group `patient` is required, "
        "`sample_type` and `vial` are optional.",
    )
    leave_out: list[str] = Field(default=[], description="Sample types that are no tumour, such as TCGA's 10 and 11.")
    primary: list[str] = Field(
        default=[], description="Sample types in order of preference; others come after, sorted."
    )
    several: Literal["primary_first", "mean"] = Field(
        default="primary_first",
        description="One sample per patient (type by `primary`, then lowest vial), or the mean.",
    )

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
        match = re.match(self.barcode, barcode)
        return match.group("patient") if match else None

    def assign(self, samples: Sequence[str], *, where: str) -> Assignment:
        """Sort samples to patients and choose among several of one patient.

        Args:
            samples: Barcodes in the order of the table.
            where: The table, for messages.

        Raises:
            DataError: A barcode appears twice, or none matches the expression.
        """
        twice = [sample for sample, count in Counter(samples).items() if count > 1]
        if twice:
            raise DataError(
                f"{len(twice)} samples appear twice, first '{twice[0]}'",
                where=where,
                fix="keep one row or column per sample",
            )
        expression = re.compile(self.barcode)
        assignment = Assignment()
        candidates: dict[str, list[tuple[tuple, int]]] = {}
        for position, sample in enumerate(samples):
            match = expression.match(sample)
            if match is None or not match.group("patient"):
                assignment.unmatched.append(sample)
                continue
            named = match.groupdict()
            if named.get("sample_type") in self.leave_out:
                assignment.left_out.append(sample)
                continue
            candidates.setdefault(named["patient"], []).append((self._rank(sample, named), position))
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
