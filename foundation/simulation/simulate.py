"""`chiasma simulate`: a cohort with known truth, written in the source formats that a hospital has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from foundation.errors import ConfigError, writing
from foundation.files.whole import make_folder
from foundation.simulation import tables
from foundation.simulation.anatomy import paint
from foundation.simulation.biology import draw_biology
from foundation.simulation.guide import cohort_yaml, readme
from foundation.simulation.scans import reorient, write_localizer, write_mask, write_scan
from foundation.simulation.streams import stream
from foundation.simulation.subject import Subject, draw_subject
from foundation.simulation.truth import write_truth

FEWEST_PATIENTS = 10
"""One block of sites: with fewer, a source format could be missing altogether."""

ORIENTATIONS = ("RAS", "LPS", "LAS")


def simulate(
    out: Path,
    patients: int,
    seed: int,
    progress: Callable[[int, int], None],
    *,
    scans: bool = True,
    after: int = 0,
    annotations: bool = False,
) -> None:
    """Write a simulated cohort; the same patients and seed give the same bytes.

    Everything is written to ``OUT.partial`` and renamed at the end, so that OUT is whole or absent.

    Args:
        out: The folder to write, absent or empty.
        patients: How many patients; patient k is the same whatever their number.
        seed: At least 0.
        progress: Called with the patients done and the patients in all.
        scans: Whether anybody is scanned; all else of a patient is the same.
        after: Patients of the same seed to leave out: those who follow are new to whoever learned from them.
        annotations: Whether the tumour of every second scanned patient is drawn, as a mask beside the scans.

    Raises:
        ConfigError: The folder is not empty, or a number does not fit.
        WriteError: The disk is full or the place cannot be written.
    """
    partial = out.with_name(out.name + ".partial")
    _check(out, partial, patients, seed)
    with writing(out):
        make_folder(partial, named=out, fix="name another folder")
        try:
            _write(partial, patients, seed, progress, scans, after, annotations)
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check(out: Path, partial: Path, patients: int, seed: int) -> None:
    if patients < FEWEST_PATIENTS:
        raise ConfigError(
            f"{patients} patients are too few", where="--patients", fix=f"ask for at least {FEWEST_PATIENTS}"
        )
    if seed < 0:
        raise ConfigError(f"the seed {seed} is negative", where="--seed", fix="give 0 or a positive whole number")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("is there already and not an empty folder", where=str(out), fix="name a new folder")
    if partial.exists():
        raise ConfigError(
            "was left by a simulation that was stopped, or is being written by one that runs",
            where=str(partial),
            fix="remove that folder, unless another simulation is running",
        )


def _write(
    folder: Path,
    patients: int,
    seed: int,
    progress: Callable[[int, int], None],
    scans: bool,
    after: int,
    annotations: bool,
) -> None:
    subjects = []
    for index in range(patients):
        subject = draw_subject(seed, after + index)
        subjects.append(subject)
        if scans and subject.presence.channels:
            _write_scans(folder, seed, subject)
            if annotations and subject.patient.index % 2 == 0:
                _draw_mask(folder, subject)
        progress(index + 1, patients)
    biology = draw_biology(seed)
    tables.write_rna(folder, seed, biology, subjects)
    tables.write_mutations(folder, seed, biology, subjects)
    tables.write_segments(folder, seed, biology, subjects)
    tables.write_protein(folder, seed, biology, subjects)
    tables.write_clinical(folder, subjects)
    tables.write_pathways(folder, biology)
    write_truth(folder / "truth", biology, subjects)
    (folder / "cohort.yaml").write_text(cohort_yaml(patients, seed, scans=scans, after=after, annotations=annotations))
    (folder / "README.md").write_text(readme(patients, seed, scans=scans, after=after, annotations=annotations))


def _draw_mask(folder: Path, subject: Subject) -> None:
    """Put the true mask of a patient among the source files, as somebody might have drawn it."""
    name = f"{subject.patient.name}.nii.gz"
    (folder / "masks").mkdir(exist_ok=True)
    shutil.copyfile(folder / "truth" / "lesion_masks" / name, folder / "masks" / name)


def _write_scans(folder: Path, seed: int, subject: Subject) -> None:
    patient, name = subject.patient, subject.patient.name
    scan_format = patient.site.scan_format
    painting = paint(seed, patient)
    orientation = "LPS"
    if scan_format == "nifti":
        orientation = str(stream(seed, "orientation", patient.index).choice(ORIENTATIONS))
    scans = folder / "scans" / scan_format / name
    for channel in subject.presence.channels:
        volume, affine = reorient(getattr(painting, channel), painting.affine, orientation)
        path = scans if scan_format == "dicom" else scans / f"{channel}.nii.gz"
        write_scan(volume, affine, path, scan_format, patient=name, channel=channel, seed=seed)
    if scan_format == "dicom":
        volume, affine = reorient(painting.t1, painting.affine, orientation)
        write_localizer(volume, affine, scans, patient=name, seed=seed)
    mask, affine = reorient(painting.lesion, painting.affine, orientation)
    write_mask(mask, affine, folder / "truth" / "lesion_masks" / f"{name}.nii.gz")
