"""Sample barcodes to patients: which samples count, and which of a patient's several samples is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from foundation.config import Config
from foundation.errors import DataError
from foundation.wording import counted

_CUTS = re.compile(r"[-._: /]|(?<=[-._]\d\d)[A-Z](?=[-._]|$)")
"""Where a barcode may end earlier and still name the same: before a separator, or before the vial after a type."""


def shorter_names(barcode: str, vial: int = 0) -> list[str]:
    """What a barcode is called at lesser lengths: ``P1-01A-11R`` is also ``P1``, ``P1-01`` and ``P1-01A``.

    Args:
        barcode: The barcode.
        vial: Where its vial begins, if that is known.
    """
    cuts = {match.start() for match in _CUTS.finditer(barcode)} | {vial}
    return [barcode[:cut] for cut in sorted(cuts) if cut > 0]


def only_new(barcodes: Iterable[str], known: Sequence[str]) -> list[str]:
    """Barcodes that are none of the known ones, neither as they stand nor at another length."""
    shorter = {name for barcode in known for name in shorter_names(barcode)} | set(known)
    as_they_stand = set(known)
    return [
        barcode
        for barcode in dict.fromkeys(barcodes)
        if barcode not in shorter and as_they_stand.isdisjoint(shorter_names(barcode))
    ]


class _Candidate(NamedTuple):
    """A sample that may serve its patient; the lowest is preferred."""

    rank: tuple
    position: int
    sample: str
    vial: int


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
        barcode = barcode.strip()
        if self.separators is not None:
            barcode = SEPARATORS.sub(self.separators, barcode)
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
                blanks = other.strip() == barcode.strip()
                made = "without the blanks around them" if blanks else "after patients.normalise"
                raise DataError(
                    f"'{other}' and '{barcode}' are both '{self.normalise(barcode)}' {made}",
                    where=where,
                    fix="rename one where they are different patients or samples; write them alike where they are one",
                )

    def assign(self, samples: Sequence[str], *, where: str) -> Assignment:
        """Sort samples to patients and choose among several of one patient.

        A sample that is named at two lengths of its barcode is one: see `Assignment.same`.

        Args:
            samples: Barcodes in the order of the table.
            where: The table, for messages.

        Raises:
            DataError: A barcode appears twice, two become one, or none matches the expression.
        """
        twice = [sample for sample, count in Counter(samples).items() if count > 1]
        if twice:
            raise DataError(
                f"{counted(len(twice), 'sample')} named more than once, first '{twice[0]}'",
                where=where,
                fix="keep one row or column per sample",
            )
        self.refuse_merged(samples, where=where)
        expression = re.compile(self.barcode)
        assignment = Assignment()
        candidates: dict[str, list[_Candidate]] = {}
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
            vial = match.start("vial") if named.get("vial") else 0
            candidate = _Candidate(self._rank(barcode, named), position, barcode, vial)
            candidates.setdefault(named["patient"], []).append(candidate)
        if samples and len(assignment.unmatched) == len(samples):
            alike = Normalise(case="upper", separators="-")
            others = any(expression.match(alike(sample)) for sample in samples)
            raise DataError(
                f"none of {len(samples)} barcodes matches the patient rule, first '{samples[0]}'",
                where=where,
                fix=(
                    "set `patients.normalise: true`: some match in upper case with hyphens"
                    if others
                    else f"correct patients.barcode, now {self.barcode!r}, or the orientation of the table"
                ),
            )
        for patient in sorted(candidates):
            ranked = _by_sample(candidates[patient])
            for first, *others in ranked if self.several == "mean" else ranked[:1]:
                assignment.by_patient.setdefault(patient, []).append(first)
                if others:
                    assignment.same[first] = others
        return assignment

    def _rank(self, sample: str, named: dict[str, str | None]) -> tuple:
        kind = named.get("sample_type") or ""
        order = self.primary.index(kind) if kind in self.primary else len(self.primary)
        return order, kind, named.get("vial") or "", sample


def _by_sample(candidates: list[_Candidate]) -> list[list[int]]:
    """Positions of one patient's candidates, those of one sample together; the preferred sample and name first."""
    names = {candidate.sample for candidate in candidates}
    longer: dict[str, list[_Candidate]] = {}
    for candidate in candidates if len(candidates) > 1 else ():
        for name in names.intersection(shorter_names(candidate.sample, candidate.vial)):
            longer.setdefault(name, []).append(candidate)
    samples = {c.sample: [c] for c in sorted(candidates) if c.sample not in longer}
    for name in sorted(longer):
        # A name that fits several samples is that of the preferred one.
        fitting = [candidate for candidate in longer[name] if candidate.sample in samples]
        key = min(fitting).sample if fitting else name
        samples.setdefault(key, []).extend(candidate for candidate in candidates if candidate.sample == name)
    return [[candidate.position for candidate in sorted(group)] for group in samples.values()]


@dataclass
class Assignment:
    """Which samples of a table serve which patient.

    Attributes:
        by_patient: Patient to positions in the table, one per sample; several only for the mean.
        same: Such a position to those of the same sample under longer or shorter names.
        unmatched: Barcodes that the expression does not match.
        left_out: Barcodes whose sample type is left out.
    """

    by_patient: dict[str, list[int]] = field(default_factory=dict)
    same: dict[int, list[int]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
