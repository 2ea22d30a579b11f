"""summary.html of a prepared cohort: which sections it has, in which order, its headline and where it comes from."""

from __future__ import annotations

from pathlib import Path

from foundation.cohort.manifest import Manifest
from foundation.cohort.people import People
from foundation.cohort.store import PreparedCohort
from foundation.cohort.summary.sections.annotations import add_annotations
from foundation.cohort.summary.sections.endpoints import add_endpoints
from foundation.cohort.summary.sections.folds import add_folds
from foundation.cohort.summary.sections.intensities import add_intensities
from foundation.cohort.summary.sections.key_numbers import add_key_numbers
from foundation.cohort.summary.sections.presence import add_presence
from foundation.cohort.summary.sections.quarantine import add_quarantine
from foundation.cohort.summary.sections.remarks import add_remarks
from foundation.cohort.summary.sections.sites_and_groups import add_presence_by
from foundation.cohort.summary.sections.slices import add_slices
from foundation.cohort.summary.sections.values import add_values
from foundation.report.page import Cell, Page
from foundation.wording import counted, file_size, listed

FILE = "summary.html"


def write_summary(out: Path, manifest: Manifest) -> None:
    """Write `summary.html` into a prepared cohort, from counts and from a fixed sample of its records.

    No patient is named on the page.

    Args:
        out: The cohort's folder; its cohort.json need not be there yet.
        manifest: What cohort.json will say.

    Raises:
        OSError: The disk is full or read-only; nothing half written is left.
    """
    people = People(PreparedCohort(out, manifest))
    page = Page(f"Cohort {manifest.name}", _headline(manifest))
    add_key_numbers(page, people)
    add_presence(page, people)
    add_presence_by(page, people, "site", people.sites)
    add_presence_by(page, people, "group", people.groups)
    add_values(page, people)
    add_intensities(page, people)
    add_endpoints(page, people)
    add_slices(page, people)
    add_annotations(page, people)
    add_remarks(page, manifest)
    add_quarantine(page, people)
    add_folds(page, manifest)
    _provenance(page, manifest)
    page.write(out / FILE)


def _headline(manifest: Manifest) -> str:
    having = [f"{entry.patients:,} with {name}" for name, entry in manifest.modalities.items()]
    return f"{manifest.name} holds {counted(manifest.patients, 'patient')}: {listed(having)}."


def _provenance(page: Page, manifest: Manifest) -> None:
    page.section("Sources and versions", "SHA-256 is shortened here; sources.tsv and cohort.json have it whole.")
    rows = [
        (name, Cell(file_size(table["bytes"])), table["sha256"][:12])
        for name, table in manifest.sources["tables"].items()
    ]
    images = manifest.sources["images"]
    if images["files"]:
        rows.append((counted(images["files"], "image file"), Cell(file_size(images["bytes"])), images["sha256"][:12]))
    page.table(["source", "size", "SHA-256"], rows)
    page.table(["library", "version"], list(manifest.versions.items()))
    page.text(f"Fingerprint of the YAML and its sources: {manifest.fingerprint[:12]}")
