"""The section on who has what: patterns of modalities, and of the channels of each image modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from foundation.cohort.manifest import ImageEntry
from foundation.cohort.people import People
from foundation.cohort.summary.figures.patterns import Pattern, pattern_plot
from foundation.report.page import Page, Picture
from foundation.wording import counted, listed

MOST_PATTERNS = 20


def add_presence(page: Page, people: People) -> None:
    """Add a picture of the patterns of modalities, and one of the channels of each image that has several."""
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
    return pattern_plot(shown, totals, patients, caption)


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
