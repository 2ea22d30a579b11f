"""What a prepared cohort holds, as a short table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

PATTERNS_SHOWN = 8


def print_cohort(content: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print a cohort.

    Args:
        content: cohort.json as read.
        folder: The prepared cohort, to say where its summary is.
        console: Where to print; stdout by default.
    """
    console = console or Console()
    _say(console, f"{content['name']}: {content['patients']} patients")
    console.print(_modalities(content["modalities"]))
    console.print(_patterns(content["patterns"]))
    if content["endpoints"]:
        console.print(_endpoints(content["endpoints"]))
    if content.get("annotations"):
        console.print(_annotations(content["annotations"]))
    for name, others in content.get("sources", {}).get("other_channels", {}).items():
        if others:
            files = ", ".join(f"{channel} ({count} files)" for channel, count in others.items())
            _say(console, f"found beside {name} and left out, being none of its channels: {files}")
    for name, remarks in content.get("remarks", {}).items():
        for what, count in remarks.items():
            _say(console, f"{name}: {what} ({count:,})")
    quarantined = content.get("quarantined", 0)
    reasons = f", each with its reason in {folder / 'quarantine.tsv'}" if quarantined else ""
    _say(console, f"quarantined: {quarantined}{reasons}")
    _say(console, f"open {folder / 'summary.html'}")


def _say(console: Console, text: str) -> None:
    # A path stays on one line, to be copied.
    console.print(Text(text), soft_wrap=True)


def _table(*columns: str, numbers: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column == numbers else "left")
    return table


def _modalities(modalities: dict[str, Any]) -> Table:
    table = _table("modality", "kind", "patients", "holds", numbers="patients")
    for name, entry in modalities.items():
        if entry["kind"] == "image":
            channels = ", ".join(f"{channel} {patients}" for channel, patients in entry["channels"].items())
            holds = f"{' x '.join(map(str, entry['shape']))} voxels; {channels}"
        else:
            holds = f"{entry['features']} features"
        table.add_row(Text(name), entry["kind"], str(entry["patients"]), Text(holds))
    return table


def _patterns(patterns: dict[str, int]) -> Table:
    table = _table("present together", "patients", numbers="patients")
    ranked = sorted(patterns.items(), key=lambda pattern: (-pattern[1], pattern[0]))
    for name, patients in ranked[:PATTERNS_SHOWN]:
        table.add_row(Text(name.replace("+", " + ")), str(patients))
    rest = ranked[PATTERNS_SHOWN:]
    if rest:
        table.add_row(f"{len(rest)} more patterns", str(sum(patients for _, patients in rest)))
    return table


def _endpoints(endpoints: dict[str, dict[str, Any]]) -> Table:
    table = _table("endpoint", "kind", "patients", "holds", numbers="patients")
    for name, entry in endpoints.items():
        if "classes" in entry:
            holds = ", ".join(f"{label} {patients}" for label, patients in entry["classes"].items())
        elif "events" in entry:
            holds = f"{entry['events']} events, median follow-up {_follow_up(entry)}"
        else:
            holds = "numbers"
        table.add_row(Text(name), entry["kind"], str(entry["patients"]), Text(holds))
    return table


def _annotations(annotations: dict[str, dict[str, Any]]) -> Table:
    table = _table("annotation", "drawn", "patients", "holds", numbers="patients")
    for name, entry in annotations.items():
        holds = ", ".join(f"{region} {found['patients']}" for region, found in entry["regions"].items())
        table.add_row(Text(name), f"{entry['drawn']} of {entry['image']}", str(entry["patients"]), Text(holds))
    return table


def _follow_up(entry: dict[str, Any]) -> str:
    median = entry.get("median_follow_up")
    return "unknown" if median is None else f"{median:g} {entry.get('unit', '')}".rstrip()
