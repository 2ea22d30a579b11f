"""Describing a folder, all of it: its files listed, placed by portal and by kind, and the draft of a cohort.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import foundation.cohort.describe.portals  # noqa: F401  (makes every portal known)
from foundation.cohort.barcodes import PatientRule
from foundation.cohort.describe.beside import place_rest
from foundation.cohort.describe.dicom import place_dicom
from foundation.cohort.describe.draft import to_yaml
from foundation.cohort.describe.findings import Findings
from foundation.cohort.describe.images import place_images
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.portals.base import PORTALS
from foundation.cohort.describe.rule import choose_rule, normalised
from foundation.cohort.reading.tables import column_names
from foundation.cohort.spec import Quarantine
from foundation.errors import DataError
from foundation.progress import Progress
from foundation.wording import counted


@dataclass
class Description:
    """A folder described.

    Attributes:
        findings: What was found.
        files, bytes: How much there is.
    """

    findings: Findings
    files: int
    bytes: int

    def yaml(self, root: str) -> str:
        """The cohort.yaml; `root` is the folder as it is to stand in it."""
        return to_yaml(self.findings, root)


def describe(folder: Path, progress: Progress) -> Description:
    """Look at a folder of source files.

    Raises:
        DataError: It is no folder, is empty, or nothing in it could be a modality; it says what was found instead.
    """
    listing = Listing(folder, progress)
    findings = Findings(name=_name_of(folder))
    portal = next((known() for known in PORTALS if known().recognises(listing)), None)
    if portal is not None:
        findings.portal = portal.title
        portal.place(listing, findings, progress)
    place_rest(listing, findings, progress)
    place_images(listing, findings, progress)
    place_dicom(listing, findings, progress)
    _join_scans(findings)
    _name_what_is_left(listing, findings)
    if not findings.modalities:
        found = "; ".join(f"{where}: {why}" for where, why in findings.aside[:5])
        raise DataError(
            f"nothing in {counted(len(listing.sizes), 'file')} could be an image or an omics table",
            where=str(folder),
            fix=f"name the folder that holds scans or tables. What is there: {found}",
        )
    samples = [sample for modality in findings.modalities.values() for sample in modality.samples]
    patients = findings.patients.patients if findings.patients else []
    findings.rule, findings.rule_notes = choose_rule(patients, samples, findings.pairs)
    rule = normalised(findings.rule, patients, samples)
    if rule is not findings.rule:
        findings.rule = rule
        findings.rule_notes.append("CHECK: names of patients differ in case or separators between files: made alike.")
    _note_strangers(findings)
    _name_unused_columns(listing, findings)
    return Description(findings, len(listing.sizes), sum(listing.sizes.values()))


def _note_strangers(findings: Findings) -> None:
    """Put aside modalities of none of the patients, and note where many are of nobody in the table of patients.

    Raises:
        DataError: No modality is left.
    """
    if findings.patients is None:
        return
    rule = PatientRule.model_validate(findings.rule)
    known = {rule.patient(patient) for patient in findings.patients.patients}
    usual = Quarantine().stop_above
    for name, modality in list(findings.modalities.items()):
        found = {rule.patient(sample) or sample for sample in modality.samples}
        strangers = len(found - known)
        if found and strangers == len(found):
            findings.put_aside(
                modality.where,
                f"none of its {counted(len(modality.samples), 'sample')} names a patient of {findings.patients.file}: "
                "name samples after their patients, or correct `patients.barcode`, and add it as a modality",
            )
            del findings.modalities[name]
        elif found and strangers > usual * len(found):
            findings.strangers[name] = strangers, len(found)
            modality.notes.append(f"{strangers} of {len(found)} of its patients are not in {findings.patients.file}.")
    if not findings.modalities:
        raise DataError(
            "no sample names a patient of the table of patients",
            where=findings.patients.file,
            fix="name samples and scans after the patients of that table, or leave it out of the folder",
        )


def _name_unused_columns(listing: Listing, findings: Findings) -> None:
    """Columns of the table of patients that the draft does not use."""
    if findings.patients is None:
        return
    file, recipe = findings.patients.file, findings.patients.recipe
    used = {findings.patients.patient, recipe.get("site")}
    for endpoint in findings.endpoints.values():
        for key in ("column", "time", "event"):
            named = endpoint.recipe.get(key, [])
            used |= {named} if isinstance(named, str) else set(named)
    for modality in findings.modalities.values():
        source = modality.recipe["source"]
        if isinstance(source, dict) and source["format"] == "clinical" and source["files"] == file:
            columns = source["columns"].items()
            used |= {one.get("column", name) if isinstance(one, dict) else name for name, one in columns}
    unused = [name for name in dict.fromkeys(column_names(listing.path(file))) if name and name not in used]
    if unused:
        findings.put_aside(f"{file}: columns {', '.join(unused)}", "not used as a covariate or an endpoint")


def _join_scans(findings: Findings) -> None:
    """One modality of scans of one kind that lie in two formats."""
    for name in [name for name in findings.modalities if name.endswith("_2")]:
        first, other = findings.modalities[name.removesuffix("_2")], findings.modalities[name]
        alike = first.recipe["kind"] == other.recipe["kind"] == "image"
        if alike and set(first.recipe["channels"]) == set(other.recipe["channels"]):
            first.recipe["source"] = [first.recipe["source"], other.recipe["source"]]
            first.where += f" and {other.where}"
            first.holds += f"; and {other.holds}"
            first.notes += ["Two formats, one modality: `size` and `spacing` are those of the first.", *other.notes[:2]]
            first.samples += other.samples
            del findings.modalities[name]


def _name_what_is_left(listing: Listing, findings: Findings) -> None:
    """Nothing is passed over: files that nobody took are named, those of one ending together."""
    endings: dict[str, list[str]] = {}
    for name in listing.left():
        ending = "".join(Path(name).suffixes[-2:] if name.endswith(".gz") else Path(name).suffixes[-1:]).lower()
        endings.setdefault(ending, []).append(name)
    for ending, names in endings.items():
        findings.put_aside_many(names, f"no source reads files that end in {ending}" if ending else "has no ending")
    if listing.beside:
        findings.put_aside(counted(listing.beside, "file"), "left by an operating system or hidden")
    findings.put_aside_many(sorted(listing.links), "a link to a folder, which is not followed, or to nothing")
    for folder in listing.closed:
        findings.put_aside(folder, "a folder that you may not list: correct its permissions and describe again")


def _name_of(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "cohort"
