"""summary.html of a prepared cohort: who has what, what the values are, and whether the scans lie the right way."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundation.cohort.endpoints import median_follow_up
from foundation.cohort.manifest import ImageEntry, Manifest, OmicsEntry
from foundation.cohort.people import People
from foundation.cohort.store import PreparedCohort
from foundation.cohort.summary import pictures
from foundation.cohort.summary.distributions import add_distributions
from foundation.cohort.summary.pictures import Panel, Pattern
from foundation.cohort.summary.slices import add_walls
from foundation.metrics.survival import kaplan_meier
from foundation.report.page import Cell, Page, Picture
from foundation.wording import counted, file_size, listed, percent

FILE = "summary.html"
MOST_PATTERNS = 20
MOST_SITES = 30
MOST_GROUPS = 12
MOST_REASONS = 50


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
    _key_numbers(page, people)
    _presence(page, people)
    _by(page, people, "site", people.sites)
    _by(page, people, "group", people.groups)
    add_distributions(page, people)
    _endpoints(page, people)
    add_walls(page, people)
    _quarantine(page, people)
    _folds(page, manifest)
    _provenance(page, manifest)
    page.write(out / FILE)


def _headline(manifest: Manifest) -> str:
    having = [f"{entry.patients:,} with {name}" for name, entry in manifest.modalities.items()]
    return f"{manifest.name} holds {counted(manifest.patients, 'patient')}: {listed(having)}."


def _key_numbers(page: Page, people: People) -> None:
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


def _presence(page: Page, people: People) -> None:
    manifest = people.manifest
    page.section("Who has what")
    named = [(_names(pattern), patients) for pattern, patients in manifest.patterns.items()]
    named.sort(key=lambda item: (-item[1], sorted(item[0])))
    totals = {name: entry.patients for name, entry in manifest.modalities.items()}
    page.figures([_pattern_picture(named, totals, manifest.patients, "modalities")])
    for name in manifest.modalities:
        entry = manifest.modalities[name]
        if isinstance(entry, ImageEntry) and len(entry.channels) > 1:
            _channels(page, people, name, entry)


def _names(pattern: str) -> frozenset[str]:
    return frozenset() if pattern == "none" else frozenset(pattern.split("+"))


def _pattern_picture(
    patterns: Sequence[tuple[frozenset[str], int]], totals: Mapping[str, int], patients: int, what: str
) -> Picture:
    shown = [Pattern(*pattern) for pattern in patterns[:MOST_PATTERNS]]
    rest = patterns[MOST_PATTERNS:]
    caption = f"Each column is one pattern of {what}, a filled dot for each that is there, with its number of patients."
    if rest:
        number = sum(count for _, count in rest)
        shown.append(Pattern(frozenset(), number, f"{len(rest)} other patterns"))
        caption += (
            f" The {MOST_PATTERNS} most frequent of {len(patterns)} patterns are drawn; "
            f"the other {len(rest)} hold {counted(number, 'patient')} and are summed in the grey bar."
        )
    return pictures.pattern_plot(shown, totals, patients, caption)


def _channels(page: Page, people: People, name: str, entry: ImageEntry) -> None:
    channels = list(entry.channels)
    channels_PC = people.channels(name)
    page.subsection(f"Channels of {name}")
    lacking = len(channels_PC) - channels_PC.sum(axis=0)
    if not lacking.any():
        page.text(f"All {counted(len(channels_PC), 'patient')} with {name} have every channel: {', '.join(channels)}.")
        return
    lacks = [f"{count:,} lack {channel}" for channel, count in zip(channels, lacking.tolist(), strict=True) if count]
    page.text(f"Of {counted(len(channels_PC), 'patient')} with {name}, {listed(lacks)}.")
    patterns, counts = np.unique(channels_PC, axis=0, return_counts=True)
    named = [
        (frozenset(channel for channel, here in zip(channels, pattern, strict=True) if here), int(count))
        for pattern, count in zip(patterns, counts, strict=True)
    ]
    named.sort(key=lambda item: (-item[1], sorted(item[0])))
    totals = dict(zip(channels, channels_PC.sum(axis=0).tolist(), strict=True))
    page.figures([_pattern_picture(named, totals, len(channels_PC), "channels")])


def _by(page: Page, people: People, what: str, of_patient: np.ndarray) -> None:
    """A heat map of the share of each site's or group's patients who have a modality."""
    if not of_patient.astype(bool).any():
        return
    page.section(f"Modality by {what}")
    names, index, counts = np.unique(of_patient.astype(str), return_inverse=True, return_counts=True)
    having = np.zeros((len(names), people.present.shape[1]), dtype=np.int64)
    np.add.at(having, index, people.present)
    order = sorted(np.flatnonzero(names != ""), key=lambda row: (-counts[row], names[row]))
    rows = [_heat_row(str(names[row]), int(counts[row]), having[row]) for row in order[:MOST_SITES]]
    rest = order[MOST_SITES:]
    if rest:
        rows.append(_heat_row(f"{len(rest)} other {what}s", int(counts[rest].sum()), having[rest].sum(axis=0)))
    unknown = np.flatnonzero(names == "")
    if len(unknown):
        rows.append(_heat_row(f"{what} not known", int(counts[unknown[0]]), having[unknown[0]]))
    rows.append(_heat_row("all", len(people), people.present.sum(axis=0)))
    caption = f"Percent of the {what}'s patients who have the modality" + (
        f"; the {MOST_SITES} largest of {len(order)} {what}s, the others summed" if rest else ""
    )
    page.table([what, "patients", *people.cohort.modalities], rows, caption)


def _heat_row(name: str, patients: int, having: np.ndarray) -> list[str | int | Cell]:
    cells = [Cell(percent(int(count), patients), shade=int(count) / max(patients, 1)) for count in having]
    return [name, patients, *cells]


def _endpoints(page: Page, people: People) -> None:
    if not people.manifest.endpoints:
        return
    page.section("Endpoints", _how_to_read(people.manifest))
    rows = []
    for name, entry in people.manifest.endpoints.items():
        known = _is_known(people.endpoint(name))
        overlap = people.present[known].sum(axis=0).tolist()
        cells = [Cell(f"{count:,}", shade=count / max(len(people), 1)) for count in overlap]
        rows.append((name, entry["kind"], int(known.sum()), *cells))
    header = ["endpoint", "kind", "patients", *(f"and {name}" for name in people.cohort.modalities)]
    page.table(header, rows, "Patients whose endpoint is known, and how many of them have each modality")
    for name, entry in people.manifest.endpoints.items():
        if entry.get("incomplete"):
            halves = counted(entry["incomplete"], "patient has", "patients have")
            page.text(f"{name}: {halves} only a time or only an event, which counts as not known.")
    drawn = {name: _endpoint_pictures(people, name, entry) for name, entry in people.manifest.endpoints.items()}
    if any(len(figures) > 1 for figures in drawn.values()):
        for name, figures in drawn.items():
            page.subsection(name)
            page.figures(figures)
    else:
        page.figures(figure for figures in drawn.values() for figure in figures)


def _endpoint_pictures(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    if entry["kind"] == "survival":
        return _survival(people, name, entry)
    return _number(people, name, entry) if entry["kind"] == "regression" else _classes(people, name, entry)


def _how_to_read(manifest: Manifest) -> str:
    kinds = {entry["kind"] for entry in manifest.endpoints.values()}
    if "survival" not in kinds:
        return ""
    words = "Survival is drawn by Kaplan-Meier with its 95\u00a0% confidence band and the number of patients at risk"
    if not manifest.groups:
        return words + "."
    words += ", each group by itself, never pooled"
    left_out = len(manifest.groups) - MOST_GROUPS
    return words + (f"; the {MOST_GROUPS} largest groups, {left_out} are left out." if left_out > 0 else ".")


def _is_known(values: Mapping[str, np.ndarray]) -> np.ndarray:
    if "code" in values:
        return values["code"] >= 0
    return ~np.any([np.isnan(part) for part in values.values()], axis=0)


def _classes(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    classes = {str(label): int(count) for label, count in entry["classes"].items()}
    missing = len(people) - sum(classes.values())
    ordered = " In order." if entry["kind"] == "response" else ""
    caption = f"{counted(sum(classes.values()), 'patient')}; percent of those whose class is known.{ordered}"
    alt = f"Bars of the classes of {name}: " + ", ".join(f"{label} {count}" for label, count in classes.items())
    return [pictures.class_bars(classes, missing, alt=alt, title=name, caption=caption)]


def _number(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    values = people.endpoint(name)["value"]
    values = values[np.isfinite(values)]
    caption = f"{counted(len(values), 'patient')} of {len(people):,}."
    if len(values):
        caption += f" From {values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}."
    panel = Panel(values, entry.get("unit") or "value", name)
    return [pictures.histogram(panel, alt=f"Histogram of {name}", caption=caption, counted="patients")]


PER_YEAR = {"days": 365.25, "weeks": 365.25 / 7, "months": 12.0, "years": 1.0}


def _survival(people: People, name: str, entry: dict[str, Any]) -> list[Picture]:
    """A Kaplan-Meier curve, or one per group: patients of different groups are never pooled."""
    values = people.endpoint(name)
    known = _is_known(values)
    if not known.any():
        return []
    time, group = values["time"][known], people.groups[known].astype(str)
    # Of competing events, whichever came first.
    event = (values["event"][known] > 0).astype(np.float64)
    unit = entry.get("unit", "")
    if unit in PER_YEAR and time.max() >= 3 * PER_YEAR[unit]:
        time, unit = time / PER_YEAR[unit], "years"
    names, counts = np.unique(group, return_counts=True)
    order = sorted(range(len(names)), key=lambda position: (-counts[position], names[position]))
    drawn = []
    # The time axis ends where a hundredth is still under observation: the last few patients tell nothing.
    horizon = float(np.quantile(time, 0.99)) or 1.0
    for position in order[:MOST_GROUPS]:
        here = group == names[position]
        label = f"{name}, {names[position] or 'group not known'}" if len(names) > 1 else name
        drawn.append(_curve(time[here], event[here], horizon=horizon, unit=unit, title=label))
    return drawn


def _curve(time: np.ndarray, event: np.ndarray, *, horizon: float, unit: str, title: str) -> Picture:
    curve = kaplan_meier(time, event)
    middle, early, late = (curve.median(line) for line in (curve.free, curve.low, curve.high))
    watched = median_follow_up(time, event)
    words = f"{counted(len(time), 'patient')}, {counted(int(event.sum()), 'event')}."
    if np.isnan(middle):
        words += " Median time to the event not reached."
    else:
        until = "not reached" if np.isnan(late) else f"{late:.3g}"
        interval = "" if np.isnan(early) else f" (95\u00a0% interval {early:.3g} to {until})"
        words += f" Median time to the event {middle:.3g} {unit}{interval}."
    if watched is not None:
        words += f" Median follow-up {watched:.3g} {unit} (reverse Kaplan-Meier)."
    alt = f"Kaplan-Meier curve of {title}. {words}"
    return pictures.survival_plot(time, event, horizon=horizon, unit=unit, alt=alt, title=title, caption=words)


def _quarantine(page: Page, people: People) -> None:
    page.section("Set aside")
    if not people.manifest.quarantined:
        page.text("Nothing was set aside: every scan and every sample could be used.")
        return
    page.text(
        f"{counted(people.manifest.quarantined, 'scan or sample', 'scans or samples')} could not be used. "
        "Names are left out here; quarantine.tsv lists each with its patient."
    )
    grouped = Counter(_reasons(people.cohort.path / "quarantine.tsv", set(people.cohort.patients.tolist())))
    ordered = sorted(grouped.items(), key=lambda item: (-item[1], item[0]))
    rows = [(modality, reason, count) for (modality, reason), count in ordered[:MOST_REASONS]]
    rest = sum(count for _, count in ordered[MOST_REASONS:])
    if rest:
        rows.append(("", f"{len(ordered) - MOST_REASONS} other reasons", rest))
    page.table(["modality", "reason", "number"], rows)


def _reasons(path: Path, patients: set[str]) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield row["modality"], without_names(row["reason"], {row["patient"], row["item"]}, patients)


def without_names(reason: str, known: set[str], patients: set[str]) -> str:
    """A reason without what may name a patient: known names, quoted words, paths, and words with digits.

    Args:
        reason: As written in quarantine.tsv.
        known: Names to take out wherever they occur.
        patients: Patients of the cohort, taken out where they are a word.
    """
    # Errors of a file begin with its path; the path may hold blanks.
    reason = re.sub(r"^[^:]*[/\\][^:]*: ", "", reason)
    for name in sorted(filter(None, known), key=len, reverse=True):
        reason = reason.replace(name, "…")
    reason = re.sub(r"(?<!\w)(['\"]).*\1(?!\w)", "…", reason)
    words = [_plain_word(word, patients) for word in reason.split()]
    return re.sub(r"…( …)+", "…", " ".join(words))


def _plain_word(word: str, patients: set[str]) -> str:
    core = word.strip(".,;:()[]")
    if core in patients or re.search(r"[\d/\\]", core) or re.search(r"\w\.\w", core):
        return word.replace(core, "…")
    return word


def _folds(page: Page, manifest: Manifest) -> None:
    if not manifest.folds:
        return
    page.section("Published folds")
    splits = sorted({split for fold in manifest.folds.values() for split in fold}, key=_split_order)
    rows = [(fold, *(sizes.get(split, 0) for split in splits)) for fold, sizes in manifest.folds.items()]
    page.table(["fold", *splits], rows, "Patients per split")


def _split_order(split: str) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(split) if split in order else len(order)), split


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
