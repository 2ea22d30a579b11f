"""The key numbers of a cohort, and its table of modalities: kind, size, and what the values mean."""

from __future__ import annotations

from foundation.cohort.manifest import ImageEntry, OmicsEntry
from foundation.cohort.people import People
from foundation.report.page import Cell, Page
from foundation.wording import counted, percent


def add_key_numbers(page: Page, people: People) -> None:
    """Add counts of the whole cohort, what each modality is, and how the page is to be handled."""
    manifest = people.manifest
    complete = int(people.present.all(axis=1).sum())
    facts = [("patients", f"{manifest.patients:,}")]
    if manifest.records != manifest.patients:
        facts.append(("records (patient and time point)", f"{manifest.records:,}"))
    facts.append(("modalities", str(len(manifest.modalities))))
    facts.append(("patients with every modality", f"{complete:,} ({percent(complete, len(people))})"))
    if manifest.sites:
        facts.append(("sites", f"{len(manifest.sites):,}"))
    if manifest.groups:
        facts.append(("groups", f"{len(manifest.groups):,}"))
    facts.append(("endpoints", str(len(manifest.endpoints))))
    facts.append(("set aside (quarantine)", f"{manifest.quarantined:,}"))
    page.facts(facts)
    rows = [
        (name, entry.patients, Cell(percent(entry.patients, manifest.patients)), *_described(entry))
        for name, entry in manifest.modalities.items()
    ]
    page.table(["modality", "patients", "of all", "kind", "size", "values"], rows)
    page.text(
        "This page names no patient, but it shows pictures and counts of patients: handle it as you handle the cohort."
    )


def _described(entry: ImageEntry | OmicsEntry) -> tuple[str, str, str]:
    """Kind, size and meaning of the values."""
    if isinstance(entry, OmicsEntry):
        values = [entry.values, entry.unit, *(f"after {name}" for name in entry.transform)]
        return "omics", counted(entry.features, "feature"), ", ".join(filter(None, values))
    size = "\u00a0×\u00a0".join(map(str, entry.shape)) + (" pixels" if len(entry.shape) == 2 else " voxels")
    spacing = {"native": "spacing as in each file", "untrue": "true spacing unknown"}
    spaced = spacing.get(entry.spacing) if isinstance(entry.spacing, str) else _millimetres(entry.spacing)
    orientation = "RAS" if entry.orientation == "RAS" else "orientation as in each file"
    rule = entry.intensity
    if rule.rule == "window":
        bounds = f"window {rule.low:g} to {rule.high:g} {'' if rule.unit == 'arbitrary' else rule.unit}".strip()
    else:
        bounds = f"percentiles {rule.low:g} to {rule.high:g} of each scan"
    channels = f"{counted(len(entry.channels), 'channel')} ({', '.join(entry.channels)})"
    return f"{len(entry.shape)}D image", f"{channels}, {size}, {spaced}", f"{bounds}, {orientation}, {entry.stored_as}"


def _millimetres(spacing: tuple[float, ...]) -> str:
    return "\u00a0×\u00a0".join(f"{step:g}" for step in spacing) + "\u00a0mm"
