"""DICOM folders as modalities: which folder is a patient's, and which series are there, from some of the headers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from foundation.cohort.describe.findings import Findings, FoundModality
from foundation.cohort.describe.images import Form, image_recipe
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.patterns import patient_level
from foundation.cohort.people import evenly
from foundation.cohort.reading.dicom_frames import SUFFIXES
from foundation.cohort.sources.base import Scan
from foundation.cohort.sources.dicom import DicomSource
from foundation.errors import ChiasmaError
from foundation.progress import Progress
from foundation.wording import counted, listed

HEADERS = 1500
"""Headers that are read, spread over all folders."""

SCANS_READ = 3
"""Scans of a modality that are read whole, for their size."""

NO_SCANS = {
    "SEG": "segmentations", "RTSTRUCT": "contours", "RTDOSE": "doses", "RTPLAN": "plans", "SR": "reports",
    "REG": "registrations", "PR": "presentation states", "KO": "key objects", "OT": "other objects", "DOC": "documents",
    "SM": "slides",
}  # fmt: skip
"""DICOM modalities that are drawn or computed, and what they are."""

NAMES = {"MR": "mri", "PT": "pet", "NM": "nuclear", "MG": "mammography", "US": "ultrasound"}

MR_CHANNELS = {
    "flair": "flair|tirm|dark.?fluid",
    "t1gd": r"^(?!.*flair)(?=.*t1)(?=.*(gd|gad|post|\+c|contrast|ce\b))",
    "t1": r"^(?!.*(flair|gd|gad|post|\+c|contrast|ce\b)).*(t1|mprage|spgr)",
    "t2": r"^(?!.*(flair|tirm|dark.?fluid|\*|star)).*t2",
}
"""Channels of MRI to expressions for the descriptions of their series, each of which leaves out the others'."""

ENOUGH = 0.3
"""Share of the patients who must have a channel."""


@dataclass
class Series:
    """A series of which some headers were read."""

    modality: str
    description: str
    headers: int = 0


@dataclass
class Seen:
    """What the headers below one folder say.

    Attributes:
        patient_ids: Only to find out which folder is a patient's; never told.
        series: By UID.
    """

    patient_ids: set[str] = field(default_factory=set)
    series: dict[str, Series] = field(default_factory=dict)


def place_dicom(listing: Listing, findings: Findings, progress: Progress) -> None:
    """Place every DICOM file that is left, by folders."""
    folders = _dicom_folders(listing)
    if not folders:
        return
    listing.take(name for names in folders.values() for name in names)
    seen = _read_headers(listing, folders, progress)
    patients = set(findings.patients.patients) if findings.patients else set()
    level = _level(seen, patients)
    if level is None:
        findings.put_aside_many(
            [name for names in folders.values() for name in names],
            "DICOM files in no folder of their patient: move those of each patient into one folder",
        )
        return
    below = [str(PurePosixPath(folder)) for folder in folders if len(PurePosixPath(folder).parts) > level]
    pattern = _pattern(below, level)
    lost = [name for folder, names in folders.items() if folder not in below for name in names]
    findings.put_aside_many(lost, f"DICOM outside the folders of patients ({pattern})")
    series_of: dict[str, list[Series]] = {}
    for folder in below:
        series_of.setdefault(PurePosixPath(folder).parts[level], []).extend(seen[folder].series.values())
    files = sum(len(folders[folder]) for folder in below)
    counts = Counter(kind for found in series_of.values() for kind in {series.modality for series in found})
    for kind, number in counts.most_common():
        if kind in NO_SCANS:
            where = f"{pattern} ({NO_SCANS[kind]}, DICOM modality {kind})"
            findings.put_aside(where, f"of {counted(number, 'patient')}; drawn or computed, no scan")
        else:
            _add(listing, findings, kind, pattern, series_of, files, progress)


def _dicom_folders(listing: Listing) -> dict[str, list[str]]:
    """Folders that hold DICOM, to their files: by their endings, or by how the first file of a folder begins."""
    folders: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    for name in listing.left():
        path = PurePosixPath(name)
        ending = path.suffix.lower()
        if ending in SUFFIXES:
            folders.setdefault(str(path.parent), []).append(name)
        elif not ending[1:].isalpha() or path.name.upper() == "DICOMDIR":
            doubtful.setdefault(str(path.parent), []).append(name)
    for folder, names in doubtful.items():
        if folder in folders or _begins_as_dicom(listing.path(names[0])):
            folders.setdefault(folder, []).extend(names)
    return dict(sorted(folders.items()))


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:132] == b"DICM"


def _read_headers(listing: Listing, folders: dict[str, list[str]], progress: Progress) -> dict[str, Seen]:
    """Some headers of every folder."""
    from pydicom import dcmread

    tags: Any = ["PatientID", "Modality", "SeriesDescription", "SeriesInstanceUID"]
    each = max(1, HEADERS // len(folders))
    progress.start("reading DICOM headers", len(folders), "folders")
    seen: dict[str, Seen] = {}
    for folder, names in folders.items():
        found = seen.setdefault(folder, Seen())
        for place in evenly(len(names), each):
            try:
                header = dcmread(listing.path(names[place]), force=True, stop_before_pixels=True, specific_tags=tags)
                kind, uid = str(header.get("Modality") or "").upper(), str(header.get("SeriesInstanceUID") or "")
                described = str(header.get("SeriesDescription") or "")
            except Exception:
                continue
            if kind:
                found.patient_ids.add(str(header.get("PatientID") or ""))
                found.series.setdefault(uid, Series(kind, described)).headers += 1
        progress.advance()
    progress.finish()
    return seen


def _level(seen: dict[str, Seen], patients: Collection[str]) -> int | None:
    """Which part of the folders' paths is the patient; None where no folder can be.

    It is the part that known patients are found in, else the one that is told apart as PatientID is, else a guess.
    """
    paths = {folder: PurePosixPath(folder).parts for folder in seen if folder != "."}
    if not paths:
        return None
    deepest = max(len(parts) for parts in paths.values())
    for level in range(deepest):
        at = {folder: parts[level] for folder, parts in paths.items() if len(parts) > level}
        named = (
            sum(any(name.startswith(patient) for patient in patients) for name in set(at.values())) if patients else 0
        )
        if named > len(set(at.values())) / 2:
            return level
    for level in range(deepest):
        pairs = {
            (parts[level], who)
            for folder, parts in paths.items()
            if len(parts) > level
            for who in seen[folder].patient_ids
        }
        folders_of, ids = {folder for folder, _ in pairs}, {who for _, who in pairs}
        if len(pairs) == len(folders_of) == len(ids) and (len(ids) > 1 or folders_of == ids):
            return level
    most = Counter(map(len, paths.values())).most_common(1)[0][0]
    return min(
        patient_level(["/".join((*parts, "x")) for parts in paths.values() if len(parts) == most], patients), most - 1
    )


def _pattern(folders: Sequence[str], level: int) -> str:
    before = []
    for place in range(level):
        names = {PurePosixPath(folder).parts[place] for folder in folders}
        before.append(names.pop() if len(names) == 1 else "*")
    return "/".join([*before, "{patient}"])


def _add(
    listing: Listing,
    findings: Findings,
    kind: str,
    pattern: str,
    series_of: dict[str, list[Series]],
    files: int,
    progress: Progress,
) -> None:
    have = {patient: [s for s in found if s.modality == kind] for patient, found in series_of.items()}
    have = {patient: found for patient, found in have.items() if found}
    rules = _mr_rules(have) if kind == "MR" else {}
    name = NAMES.get(kind, kind.lower())
    rules = rules or {name: {"modality": kind}}
    source = {"format": "dicom", "files": pattern, "series": rules}
    words = Counter(series.description or "(no description)" for found in have.values() for series in found)
    notes = ["Series by their descriptions: " + ", ".join(f"{word} {n}" for word, n in words.most_common(12)) + "."]
    if len(words) > 1 or len(rules) > 1:
        notes.append(
            "DECIDE which series is meant: `description` is an expression; of several the one of most slices is taken."
        )
    form, problems = _read_some(listing, source, list(rules), progress)
    notes += problems
    if form is None:
        form = Form(np.array([[256, 256, 64]]), np.ones((1, 3)))
        notes.append("DECIDE `size` and `spacing`: no scan of those tried could be read, so these are no measurements.")
    recipe, more = image_recipe(list(rules), source, form, "scan")
    if kind == "CT":
        recipe["intensity"] = {"rule": "window", "low": -1000, "high": 400}
        more.append("Hounsfield units from -1000 to 400, for lung and soft tissue; choose the window of your organ.")
    each = listed([f"{channel} {number}" for channel, number in _patients_of(rules, have).items()])
    holds = f"{counted(len(have), 'patient')}; {each}; {counted(files, 'DICOM file')} in all"
    findings.add(name, FoundModality(recipe, pattern, holds, notes + more, sorted(have)))


def _mr_rules(have: dict[str, list[Series]]) -> dict[str, dict[str, str]]:
    rules = {name: {"modality": "MR", "description": expression} for name, expression in MR_CHANNELS.items()}
    counts = _patients_of(rules, have)
    return {name: rule for name, rule in rules.items() if counts[name] >= ENOUGH * len(have)}


def _patients_of(rules: dict[str, dict[str, str]], have: dict[str, list[Series]]) -> dict[str, int]:
    """How many patients have a series that a rule allows."""
    return {
        name: sum(
            any(re.search(rule.get("description", ""), series.description, re.IGNORECASE) for series in found)
            for found in have.values()
        )
        for name, rule in rules.items()
    }


def _read_some(
    listing: Listing, source: dict[str, Any], channels: list[str], progress: Progress
) -> tuple[Form | None, list[str]]:
    """The size of some scans, and what was wrong with others."""
    part = DicomSource(DicomSource.Config(**source), listing.folder, channels)
    try:
        scans: list[Scan] = part.list_scans()
    except ChiasmaError as error:
        return None, [f"{error.what}. {error.fix}."]
    chosen = [scans[place] for place in evenly(len(scans), SCANS_READ)]
    shapes, spacings, problems = [], [], []
    progress.start("reading scans", len(chosen), "scans")
    for scan in chosen:
        try:
            volume = part.read(scan)
        except Exception as error:
            what = error.what if isinstance(error, ChiasmaError) else type(error).__name__
            problems.append(f"One of the scans that were tried goes to quarantine: {what}.")
            volume = None
        if volume is not None and volume.voxels.ndim == 3:
            shapes.append(volume.voxels.shape)
            spacings.append(np.linalg.norm(volume.affine[:3, :3], axis=0))
        progress.advance()
    progress.finish()
    return (Form(np.array(shapes), np.array(spacings)) if shapes else None), sorted(set(problems))
