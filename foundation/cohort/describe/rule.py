"""The key `patients`: how the barcodes that were found name their patients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from foundation.cohort.barcodes import PatientRule
from foundation.wording import counted, listed

SAMPLE_TYPE = r"(-(?P<sample_type>\d{2})(?P<vial>[A-Z])?)?"
TYPES = {f"{number:02d}" for number in (*range(1, 15), 20, 40, 50, 60, 61)}
"""Sample types of TCGA."""

TCGA_RULE = {
    "barcode": rf"(?P<patient>TCGA-[A-Z0-9]{{2}}-[A-Z0-9]{{4}}){SAMPLE_TYPE}",
    "leave_out": ["10", "11", "12", "13", "14", "20"],
    "primary": ["01", "03", "09", "02", "06"],
}
TCGA_NOTES = [
    "As TCGA's barcodes: the patient, then sample type and vial. Types 10 to 14 are normal tissue, 20 a control.",
    "Of several samples of a patient the first type under `primary` serves: decide whether a metastasis (06) may.",
]

SEPARATORS = "-_.:/"

NORMAL = re.compile(
    r"(.*[-_. ])?(normal|norm|n|nat|blood|germline|control|ctrl|adjacent|benign|healthy|pbmc)\d*", re.IGNORECASE
)
"""What stands behind a patient's name where a sample is no tumour."""

ALIKE = {"case": "upper", "separators": "-"}
"""The `patients.normalise` under which barcodes that differ in case or separators alone are one."""

MOST_TISSUES = 12
"""Different words behind patients' names beyond which they say something else than the tissue."""


def choose_rule(
    patients: Sequence[str], samples: Sequence[str], pairs: dict[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The rule that brings samples to patients, and what a person should check.

    Args:
        patients: Names of patients where a table lists them.
        samples: Names of samples of all tables and scans.
        pairs: Sample to its patient where a file says so.
    """
    everybody = [*patients, *samples]
    if everybody and sum(name.startswith("TCGA-") for name in everybody) > len(everybody) / 2:
        return TCGA_RULE, TCGA_NOTES
    known, names = set(patients) | set(pairs.values()), set(samples)
    if not known or names <= known:
        return {}, []
    notes = ["How a sample's barcode names its patient: guessed from the names, check it."]
    best: tuple[int, dict[str, Any]] = (len(names & known), {})
    for expression in _candidates(sorted(known)):
        rule = PatientRule(barcode=expression)
        found = {name: rule.patient(name) for name in names}
        wrong = sum(found[sample] != patient for sample, patient in pairs.items() if sample in found)
        kept = all(rule.patient(patient) == patient for patient in known)
        right = sum(patient in known for patient in found.values())
        if kept and not wrong and right > best[0]:
            best = right, {"barcode": expression.replace(r"\-", "-")}
    lost = len(names) - best[0]
    if lost and not patients:
        notes.append(
            f"{lost} of {len(names)} samples do not name their patient by it, and each is a patient of its own: where "
            "somebody has several, folds would not keep them together."
        )
    elif lost:
        notes.append(
            f"{lost} of {len(names)} samples do not name a patient of the clinical table by it and go to quarantine; "
            "quarantine.stop_above is the share that is allowed."
        )
    if best[1]:
        _add_sample_types(best[1], names, notes)
        if "leave_out" not in best[1]:
            _add_tissues(best[1], names, notes)
    return best[1], notes


def _add_sample_types(rule: dict[str, Any], samples: set[str], notes: list[str]) -> None:
    """Where samples are numbered by type as TCGA's are, leave out normal tissue as there."""
    rests = [sample[len(PatientRule(barcode=rule["barcode"]).patient(sample) or sample) :] for sample in samples]
    longer = [rest for rest in rests if rest]
    typed = [match[1] for rest in longer if (match := re.match(r"-(\d{2})([A-Z]|$)", rest))]
    if longer and len(typed) > 0.9 * len(longer) and set(typed) <= TYPES:
        end = rule["barcode"].removesuffix("(?![A-Za-z0-9])")
        rule |= TCGA_RULE | {"barcode": end + SAMPLE_TYPE}
        notes += TCGA_NOTES[:]


def _add_tissues(rule: dict[str, Any], samples: set[str], notes: list[str]) -> None:
    """Where patients have several samples, leave out those whose names say normal tissue; say which others serve."""
    read = PatientRule(barcode=rule["barcode"])
    words_of: dict[str, list[str]] = {}
    for sample in samples:
        patient = read.patient(sample)
        if patient is not None and sample.startswith(patient):
            words_of.setdefault(patient, []).append(sample[len(patient) :].strip(SEPARATORS + " "))
    words = {word for found in words_of.values() for word in found if word}
    normal = sorted(filter(NORMAL.fullmatch, words))
    if normal and len(words) <= MOST_TISSUES:
        longest_first = "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))
        end = "(?![A-Za-z0-9])"
        rule["barcode"] = rf"{rule['barcode'].removesuffix(end)}([-_.:/ ]+(?P<sample_type>{longest_first}))?{end}"
        rule["leave_out"] = normal
        notes.append(f"Samples called {listed(normal)} are left out, as no tumour: is that so?")
    several = sum(
        len([word for word in found if word not in rule.get("leave_out", ())]) > 1 for found in words_of.values()
    )
    if several:
        notes.append(
            f"CHECK: {counted(several, 'patient')} have several samples, of which the first by its name serves. A "
            "group `sample_type` in `barcode`, with `primary` and `leave_out`, says which should."
        )


def _candidates(patients: Sequence[str]) -> list[str]:
    """Expressions for a patient's name that may be followed by more: its shape, then its number of parts."""
    expressions = []
    shapes = {re.sub(r"[A-Za-z]+", "A", re.sub(r"\d+", "0", name)) for name in patients}
    if len(shapes) <= 3:
        inner = "|".join(_shape_of([p for p in patients if _shape(p) == shape]) for shape in sorted(shapes))
        expressions.append(rf"(?P<patient>{inner})(?![A-Za-z0-9])")
    for separator in SEPARATORS:
        parts = {name.count(separator) for name in patients}
        if len(parts) == 1:
            part = rf"[^{re.escape(separator)}]+"
            expressions.append(rf"(?P<patient>{re.escape(separator).join([part] * (parts.pop() + 1))})")
    return expressions


def _shape(name: str) -> str:
    return re.sub(r"[A-Za-z]+", "A", re.sub(r"\d+", "0", name))


def _shape_of(names: Sequence[str]) -> str:
    """An expression for names that differ in their digits and letters only."""
    runs = [re.findall(r"\d+|[A-Za-z]+|[^A-Za-z\d]+", name) for name in names]
    pieces = []
    for place in range(len(runs[0])):
        texts = {run[place] for run in runs}
        lengths = sorted({len(text) for text in texts})
        first = next(iter(texts))
        if len(texts) == 1:
            pieces.append(re.escape(first) if not first.isdigit() else rf"\d{{{len(first)}}}")
        else:
            kind = r"\d" if first.isdigit() else "[A-Za-z]"
            pieces.append(f"{kind}{{{lengths[0]}}}" if len(lengths) == 1 else f"{kind}{{{lengths[0]},{lengths[-1]}}}")
    return "".join(pieces)


def normalised(rule: dict[str, Any], patients: Sequence[str], samples: Sequence[str]) -> dict[str, Any]:
    """The rule with `normalise` where more samples then name a patient, and no two patients become one."""
    wider = {**rule, "normalise": ALIKE}

    def fitting(candidate: dict[str, Any]) -> int:
        one = PatientRule.model_validate(candidate)
        known = {one.patient(patient) for patient in patients} - {None}
        return sum(one.patient(sample) in known for sample in samples) if len(known) == len(set(patients)) else -1

    return wider if fitting(wider) > max(fitting(rule), 0) else rule
