"""The section on remarks: what was done to a modality beside reading it, such as rows and files left out, counted."""

from __future__ import annotations

from foundation.cohort.manifest import Manifest
from foundation.report.page import Page


def add_remarks(page: Page, manifest: Manifest) -> None:
    """Add a table of the remarks of each modality and endpoint."""
    page.section("What was done on the way")
    rows = [(name, what, count) for name, found in manifest.remarks.items() for what, count in found.items()]
    if not rows:
        page.text("Every file and every row that belongs to a modality was read as it is.")
        return
    page.table(["modality or endpoint", "what was done", "number"], rows)
