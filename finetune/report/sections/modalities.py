"""The section on modalities: scores for every subset of them, and for the combinations that patients have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from finetune.report.answer import Entry, beats_chance, measure_of
from finetune.report.figures.forest import Row, forest
from finetune.report.sections.tables import table
from foundation.report.page import Cell, Page
from foundation.wording import counted, decimal, interval, listed

Scores = Mapping[str, Entry]


def modalities(page: Page, entry: Entry) -> None:
    """Add what the model reaches with some modalities alone, and for patients by what they have."""
    subsets: Scores = entry.get("by_modality_subset") or {}
    patterns: Scores = entry.get("by_pattern") or {}
    if subsets or patterns:
        page.subsection("Which modalities help")
    if subsets:
        _subsets(page, entry, subsets)
    if patterns:
        page.text(
            "Patients grouped by the modalities they have, all of which the model reads. Each patient is in one row "
            "only, so rows differ in their patients here too."
        )
        ordered = dict(sorted(patterns.items(), key=lambda item: -(item[1].get("n") or 0)))
        _table(page, "patients who have", ordered, entry["chance"], "By what patients have")


class Telling(NamedTuple):
    """The most telling subsets.

    Attributes:
        alone: Single modalities.
        but_one: Subsets that lack one modality, to its name; none where these are the single ones.
        every: The subset of all modalities; empty where no patient has all.
    """

    alone: list[str]
    but_one: dict[str, str]
    every: str

    @classmethod
    def of(cls, subsets: Scores) -> Telling:
        """Find them among the names of subsets, such as ``mri+rna``."""
        having = {name: frozenset(name.split("+")) for name in subsets}
        all_of_them = frozenset[str]().union(*having.values())
        lacking = {name: all_of_them - has for name, has in having.items()}
        return cls(
            [name for name, has in having.items() if len(has) == 1],
            {name: next(iter(lack)) for name, lack in lacking.items() if len(lack) == 1 and len(all_of_them) > 2},
            next((name for name, lack in lacking.items() if not lack and len(all_of_them) > 1), ""),
        )

    def labels(self) -> dict[str, str]:
        """Subset to what it is called in a figure, from above to below."""
        labels = {name: f"{name} alone" for name in self.alone}
        labels |= {name: f"all but {lacking}" for name, lacking in self.but_one.items()}
        return labels | ({self.every: "all together"} if self.every else {})


def _subsets(page: Page, entry: Entry, subsets: Scores) -> None:
    page.text(
        "The same trained model with only some modalities shown to it: each row is scored on the patients who have "
        "all of these, and everything else is hidden. Different rows are different patients, so a difference between "
        "two rows may come from the patients as well as from the modalities."
    )
    telling = Telling.of(subsets)
    page.text(_in_words(telling, subsets, entry["chance"]))
    rows = [Row(f"{label} ({_patients(subsets[name])})", subsets[name]) for name, label in telling.labels().items()]
    if rows:
        caption = "Points with 95\u00a0% intervals by bootstrap over patients."
        page.figures([forest(rows, measure=measure_of(entry), chance=entry["chance"], caption=caption)])
    _table(page, "shown to the model", subsets, entry["chance"], "Every subset of modalities")


def _in_words(telling: Telling, subsets: Scores, chance: float) -> str:
    """Which single modality predicts best, what all reach, and which are no better than chance by themselves."""
    alone = {name: subsets[name]["mean"] for name in telling.alone if subsets[name].get("mean") is not None}
    said = []
    if len(alone) > 1:
        best = max(alone, key=lambda name: alone[name])
        said.append(f"Of single modalities, {best} predicts best: {decimal(alone[best])} ({_patients(subsets[best])}).")
    together = subsets.get(telling.every, {})
    if together.get("mean") is not None:
        said.append(f"All together reach {decimal(together['mean'])} ({_patients(together)}).")
    failed = [name for name in alone if not beats_chance(subsets[name], chance)]
    if failed:
        said.append(f"Not better than chance by itself: {listed(failed)}.")
    return " ".join(said)


def _verdict(score: Entry, chance: float) -> str:
    if score.get("mean") is None:
        return ""
    if None in (score.get("ci95") or [None]):
        return "too few to tell"
    return "" if beats_chance(score, chance) else "not better than chance"


def _patients(score: Entry) -> str:
    return counted(score.get("n") or 0, "patient")


def _table(page: Page, first: str, scores: Scores, chance: float, caption: str) -> None:
    """A table of scores, marking those that are not better than chance."""
    header = [first, "patients", "value", "95 % interval", ""]
    rows = [
        [
            name.replace("+", " + "),
            score.get("n") or 0,
            Cell(decimal(score.get("mean"))),
            Cell(interval(score.get("ci95"))),
            _verdict(score, chance),
        ]
        for name, score in scores.items()
    ]
    table(page, header, rows, caption)
