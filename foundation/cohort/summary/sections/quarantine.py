"""The section on what was set aside: reasons of quarantine.tsv, what to do, numbers; freed of names of patients."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from foundation.cohort.people import People
from foundation.report.page import Page
from foundation.wording import counted

MOST_REASONS = 50


def add_quarantine(page: Page, people: People) -> None:
    """Add a table of the most frequent reasons of each modality; the others are summed."""
    page.section("Set aside")
    if not people.manifest.quarantined:
        page.text("Nothing was set aside: every scan and every sample could be used.")
        return
    page.text(
        f"{counted(people.manifest.quarantined, 'scan or sample', 'scans or samples')} could not be used. "
        "Names are left out here; quarantine.tsv lists each with its patient."
    )
    grouped = Counter(_reasons(Path(people.cohort.path) / "quarantine.tsv", set(people.cohort.patients.tolist())))
    ordered = sorted(grouped.items(), key=lambda item: (-item[1], item[0]))
    rows = [(*found, count) for found, count in ordered[:MOST_REASONS]]
    rest = sum(count for _, count in ordered[MOST_REASONS:])
    if rest:
        rows.append(("", f"{len(ordered) - MOST_REASONS} other reasons", "", rest))
    page.table(["modality", "reason", "what to do", "number"], rows)


def _reasons(path: Path, patients: set[str]) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            known = {row["patient"], row["item"]}
            yield (
                row["modality"],
                without_names(row["reason"], known, patients),
                _remedy(row["remedy"], known, patients),
            )


def _remedy(remedy: str, known: set[str], patients: set[str]) -> str:
    """A remedy without names of patients and quoted words; digits of versions and quotes within commands stay."""
    for name in sorted(filter(None, known), key=len, reverse=True):
        remedy = remedy.replace(name, "…")
    remedy = re.sub(r"(?<![\w(])'[^']*'", "…", remedy)
    return " ".join("…" if word.strip(".,;:()[]'") in patients else word for word in remedy.split())


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
