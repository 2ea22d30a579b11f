"""The page explanation.html: checks on top, then genes and pathways of each score, modalities, scans and patients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.explain.genes import TOP, CohortGenes
from finetune.explain.guards import SHARES, Guards
from finetune.explain.images.interactions import Interactions
from finetune.explain.methods import Columns, Score
from finetune.explain.radiogenomics import FDR, Radiogenomics
from finetune.explain.report.figures import bars, orders, swarm
from finetune.explain.report.pairs import add_pairs
from finetune.explain.shapley import NOTHING_KNOWN
from finetune.tasks.base import Task
from foundation.report.page import GAP, Cell, Entry, Page, Picture
from foundation.wording import counted, decimal, listed, p_number, percent

FILE = "explanation.html"

NOT_TRUSTED = "not to be trusted"

SHOWN_GENES, SHOWN_PATHWAYS, SWARMED, ON_CARD = 12, 12, 14, 8
"""Rows of tables and figures; the rest is in the files."""


@dataclass(frozen=True)
class Card:
    """What is shown of one record.

    Attributes:
        label: Of the patient.
        modalities: That were read.
        predicted: Columns of the prediction.
        score_S, attribution_SP, values_P: Its scores, what they come from, and the values, NaN where not observed.
    """

    label: str
    modalities: str
    predicted: Mapping[str, float | str]
    score_S: np.ndarray
    attribution_SP: np.ndarray
    values_P: np.ndarray

    def shown(self, scores: Sequence[Score]) -> list[tuple[int, Score]]:
        """The likeliest class of each task, or its only score."""
        best: dict[str, tuple[int, Score]] = {}
        for s, score in enumerate(scores):
            if score.task not in best or self.score_S[s] > self.score_S[best[score.task][0]]:
                best[score.task] = s, score
        return [*best.values()]

    def ordered(self, s: int) -> list[int]:
        """Columns of the values that move a score, those that move it most first."""
        a_P = self.attribution_SP[s]
        return [int(p) for p in np.argsort(-np.abs(a_P), kind="stable") if a_P[p] != 0]

    def leading(self, scores: Sequence[Score]) -> dict[Score, list[int]]:
        """Of the scores that are shown, the columns of the values that stand on the card."""
        return {score: self.ordered(s)[:ON_CARD] for s, score in self.shown(scores)}


@dataclass(frozen=True)
class Swarm:
    """Attributions of the most important features of a score: [N, K] each, and their names."""

    attribution_NK: np.ndarray
    values_NK: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Explained:
    """All that the page shows.

    Attributes:
        cohort: Its name.
        tasks: Of the predictor.
        weights: Task to method to weight.
        columns: Features.
        records: How many were explained.
        scores: That were explained.
        spread_S: Of each over records.
        guards: What the explanation stood.
        genes: Over the cohort.
        swarms: Of each score.
        pathways: Of each score; empty without gene sets.
        modalities: See `finetune.explain.shapley.modality_shares`.
        radiogenomics: What scans tell.
        cards: Of some records.
        sentences: What the cohort and the methods do not share.
        images: What the imaging side found; None without it.
        pairs: How effects of values depend on regions of scans; None without the imaging side.
    """

    cohort: str
    tasks: Mapping[str, Task]
    weights: Mapping[str, Mapping[str, float]]
    columns: Columns
    records: int
    scores: Sequence[Score]
    spread_S: np.ndarray
    guards: Guards
    genes: CohortGenes
    swarms: Sequence[Swarm]
    pathways: Sequence[pd.DataFrame]
    modalities: pd.DataFrame
    radiogenomics: Radiogenomics
    cards: Sequence[Card]
    sentences: Sequence[str] = field(default_factory=list)
    images: Any = None
    pairs: Interactions | None = None

    def every_guard(self) -> list[Any]:
        """Checks of genes, scans and pairs: each has a name, a score, a value, whether it passed, and a sentence."""
        return [*self.guards.guards, *_of_images(self)]


def _of_images(explained: Explained) -> list[Any]:
    """Checks of what explains scans: each has a name, a value, whether it passed, and a sentence."""
    return [guard for found in (explained.images, explained.pairs) if found is not None for guard in found.guards]


def headlines(explained: Explained) -> list[str]:
    """What there is to know first: whether the explanation can be believed, then what each score comes from."""
    guards = explained.every_guard()
    failed = [guard for guard in guards if not guard.passed]
    if failed:
        scores = listed(list(dict.fromkeys(f"'{getattr(guard, 'score', 'scans')}'" for guard in failed)))
        told = [f"{len(failed)} of {counted(len(guards), 'check')} failed: what explains {scores} is {NOT_TRUSTED}."]
    else:
        told = [f"The explanation stood all of its {counted(len(guards), 'check')}."] if guards else []
    if not explained.genes.features:
        return [*told, "Nothing that the kept predictor reads of this cohort is omics, so no genes are told."]
    for s, score in enumerate(explained.scores):
        leading = explained.genes.features[s].head(3)
        names = [f"{row['feature']} ({row['modality']}, {row['direction']} it)" for row in _records(leading)]
        told.append(f"{score}: most by {listed(names)}{_mark(explained, score)}.")
    return told


def write_page(explained: Explained, path: Path) -> None:
    """Write the page, which needs no network; it appears only when it is whole."""
    page = Page(f"What predictions come from: {explained.cohort}", headlines(explained)[0])
    page.text(
        "An attribution says what this predictor makes of a value, in units of the score; it does not say that a gene "
        "causes anything, and genes that go together share what one of them may do."
    )
    _checks(page, explained)
    _about(page, explained)
    for s, score in enumerate(explained.scores if explained.genes.features else ()):
        _score(page, explained, s, score)
    _modalities(page, explained)
    _radiogenomics(page, explained.radiogenomics)
    _images(page, explained.images)
    _patients(page, explained)
    page.write(path)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.to_dict("records")


def _mark(explained: Explained, score: Score) -> str:
    """Behind whatever is shown of a score that failed a check."""
    failed = explained.guards.failed(score)
    numbers = listed([f"{guard.name} {guard.value:.2g}" for guard in failed])
    return f" – {NOT_TRUSTED} ({numbers})" if failed else ""


def _passed(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _checks(page: Page, explained: Explained) -> None:
    if not explained.guards.guards and not _of_images(explained):
        return
    page.section("Can it be believed?")
    if explained.guards.guards:
        _checks_of_omics(page, explained)
    if of_images := _of_images(explained):
        rows = [[guard.name, Cell(f"{guard.value:.2g}"), _passed(guard.passed), guard.sentence] for guard in of_images]
        page.table(["of scans", "value", "so it", "what was found"], rows)


def _checks_of_omics(page: Page, explained: Explained) -> None:
    names = list(dict.fromkeys(guard.name for guard in explained.guards.guards))
    found = {(guard.score, guard.name): guard for guard in explained.guards.guards}
    rows: list[list[Entry]] = []
    for score in explained.scores:
        cells: list[Entry] = [str(score)]
        for name in names:
            guard = found.get((score, name))
            cells.append(Cell(f"{guard.value:.2g} {_passed(guard.passed)}") if guard else GAP)
        rows.append([*cells, Cell(NOT_TRUSTED if explained.guards.failed(score) else "stands", number=False)])
    page.table(["score", *names, "so it"], rows)
    page.text(
        "Completeness: by how much attributions miss the score's distance from its baseline, at most, in spreads of "
        "the score over patients. Random weights: how the map correlates with that of the same predictor with its "
        "weights in disorder; near 0 it shows what was learned. Deletion and insertion: how much faster the score "
        "moves when values are taken away, or given back, in the order of their attributions than in random order, "
        "in spreads; above 0."
    )
    with page.folded("each check in words"):
        page.table(
            ["score", "check", "what was found"],
            [[str(guard.score), guard.name, guard.sentence] for guard in explained.guards.guards],
        )
    curves = explained.guards.curves
    if curves:
        with page.folded("deletion and insertion, drawn"):
            page.figures(
                orders(SHARES, {name: values[s] for name, values in curves.items()}, str(score))
                for s, score in enumerate(explained.scores)
            )


def _about(page: Page, explained: Explained) -> None:
    page.section("What is explained")
    facts = [("records", f"{explained.records:,}"), ("scores", f"{len(explained.scores):,}")]
    facts += [(f"features of {name}", f"{at.stop - at.start:,}") for name, at in explained.columns.slices().items()]
    page.facts(facts)
    rows = []
    for task, methods in explained.weights.items():
        total = sum(methods.values())
        made = ", ".join(f"{name} {percent(weight, total)}" for name, weight in methods.items())
        names = [score.name for score in explained.scores if score.task == task]
        meaning = (inspect.getdoc(explained.tasks[task].scores) or "").partition("\n")[0]
        rows.append([task, ", ".join(names), meaning, made])
    page.table(["task", "scores", "what a score is", "the kept predictor, by weight"], rows)
    page.text(
        "The baseline that attributions start from is the median of the patients who taught the predictor, or a gene "
        "without mutation; scans and what is missing stay as they are. What was not observed gets nothing."
    )
    for sentence in explained.sentences:
        page.text(sentence)


def _score(page: Page, explained: Explained, s: int, score: Score) -> None:
    page.section(f"{score}{_mark(explained, score)}")
    drawn = explained.swarms[s]
    page.figures([swarm(drawn.attribution_NK, drawn.values_NK, drawn.names, str(score))])
    features = explained.genes.features[s].head(SHOWN_GENES)
    largest = max(float(features["mean_absolute"].max()), 1e-12)
    rows = [
        [
            row["feature"],
            Cell(row["modality"], number=False),
            row["records"],
            Cell(f"{row['mean_absolute']:.3g}", 0.6 * row["mean_absolute"] / largest),
            row["direction"],
            Cell(f"{row['rank_low']:.0f} to {row['rank_high']:.0f}"),
            Cell(percent(row[f"share_in_top_{TOP}"], 1)),
        ]
        for row in _records(features)
    ]
    header = ["feature", "modality", "records", "mean |attribution|", "more of it", "rank, 95 %", f"in the top {TOP}"]
    page.table(header, rows, "Features; ranks and how often one is in the top, over bootstraps of patients")
    if (explained.genes.genes[s]["modalities"].str.contains("+", regex=False)).any():
        _joined(page, explained.genes.genes[s])
    if s < len(explained.pathways):
        _pathways(page, explained.pathways[s])
    else:
        page.text("No gene sets: the predictor's tokenizer knows none. Name a GMT file with --gene-sets.")


def _joined(page: Page, genes: pd.DataFrame) -> None:
    rows = [
        [
            row["gene"],
            row["modalities"].replace("+", ", "),
            Cell(f"{row['mean_absolute']:.3g}"),
            f"{row['direction']}, by {row['mostly_by']}",
            Cell(f"{row['rank_low']:.0f} to {row['rank_high']:.0f}"),
            Cell(percent(row[f"share_in_top_{TOP}"], 1)),
        ]
        for row in _records(genes.head(SHOWN_GENES))
    ]
    header = ["gene", "measured by", "mean |attribution|", "more of it", "rank, 95 %", f"in the top {TOP}"]
    with page.folded("genes, joined over modalities"):
        page.table(header, rows)


def _pathways(page: Page, pathways: pd.DataFrame) -> None:
    if not len(pathways):
        page.text("No gene set has enough genes that were measured.")
        return
    rows = [
        [
            row["pathway"],
            row["genes"],
            Cell(f"{row['mean_rank']:.2f}"),
            Cell(p_number(row["p_value"])),
            Cell(p_number(row["fdr"]), 0.5 if row["fdr"] < FDR else None),
            f"{row['direction']} ({percent(row['raises'] if row['direction'] == 'raises' else 1 - row['raises'], 1)})",
            row["leading"],
        ]
        for row in _records(pathways.head(SHOWN_PATHWAYS))
    ]
    header = ["pathway", "genes", "mean rank", "p", "FDR", "more of it", "led by"]
    page.table(header, rows, "Gene sets whose genes matter more than others (mean rank 0.5: as much as others)")


def _modalities(page: Page, explained: Explained) -> None:
    if not len(explained.modalities):
        return
    page.section(
        "What each modality contributes",
        "Shapley values, exact over all subsets of what a patient has: how much knowing a modality moves the score. "
        "Bars are means of absolute shares, over the records that have the modality.",
    )
    figures = []
    for score in explained.scores:
        of = explained.modalities
        of = of[(of["task"] == score.task) & (of["score"] == score.name) & (of["modality"] != NOTHING_KNOWN)]
        mean = of.assign(size=np.abs(of["share"])).groupby("modality")["size"].mean().to_dict()
        names = sorted(map(str, mean), key=lambda name: -mean[name])
        sizes = [mean[name] for name in names]
        figures.append(bars(names, sizes, axis="mean |share|", title=str(score), alt=f"Modalities of {score}"))
    page.figures(figures)


def _radiogenomics(page: Page, found: Radiogenomics) -> None:
    page.section("What a scan tells of genes")
    for sentence in found.sentences:
        page.text(sentence)
    if not len(found.features):
        return
    header = ["", "scan", "modality", "patients", "R², out of fold", "p", "FDR"]
    told = int((found.features["fdr"] < FDR).sum())
    page.text(f"{told:,} of {counted(len(found.features), 'feature')} are told at a false discovery rate of {FDR:.0%}.")
    for what, frame in (("Features", found.features), ("Pathways", found.pathways)):
        rows = [
            [
                row["name"],
                row["scan"],
                row["modality"],
                row["patients"],
                Cell(decimal(row["r_squared"]), max(0.0, row["r_squared"])),
                Cell(p_number(row["p_value"])),
                Cell(p_number(row["fdr"])),
            ]
            for row in _records(frame.head(SHOWN_GENES))
        ]
        if rows:
            page.table(header, rows, f"{what} that the image embedding alone predicts best")


def _images(page: Page, images: Any) -> None:
    """Add the sections of the imaging side, where it is part of the project: each is a function of the page."""
    for section in images.sections if images is not None else ():
        section(page)


def _patients(page: Page, explained: Explained) -> None:
    if not explained.cards:
        return
    page.section(
        "Patients",
        "Of classes, the likeliest one is explained. Bars say by what omics values move the score from its baseline; "
        "the scan, and what is missing, are part of the baseline here.",
    )
    if explained.pairs is not None and explained.pairs.sentence:
        page.text(f"Genes and regions of scans: {explained.pairs.sentence}")
    for card in explained.cards:
        page.subsection(card.label)
        page.text(f"Read from {card.modalities.replace('+', ', ')}.")
        shown = card.shown(explained.scores)
        rows = [[score.task, _predicted(card, score.task), _by_modality(explained, card, score)] for _, score in shown]
        page.table(["task", "predicted", "moved by each modality (Shapley values)"], rows)
        if explained.genes.features:
            page.figures(_card_figure(explained, card, s, score) for s, score in shown)
        _pairs(page, explained, card)


def _pairs(page: Page, explained: Explained, card: Card) -> None:
    """How the values on a card depend on regions of each scan."""
    if explained.pairs is None or explained.images is None:
        return
    scans = {one.modality: one for one in explained.images.shown if one.label == card.label}
    for pairs in explained.pairs.pairs.get(card.label, []):
        leading, guards = card.leading(explained.scores), explained.pairs.guards
        add_pairs(page, pairs, scans[pairs.modality], leading, explained.scores, explained.columns, guards)


def _card_figure(explained: Explained, card: Card, s: int, score: Score) -> Picture:
    """Bars of the values that moved a score most; in words all others together."""
    names, modalities, a_P = explained.columns.names, explained.columns.modalities, card.attribution_SP[s]
    ordered = card.ordered(s)
    labels = [f"{names[p]} {modalities[p]} {card.values_P[p]:.3g}" for p in ordered[:ON_CARD]]
    sizes = a_P[ordered[:ON_CARD]].tolist()
    from_what = float(card.score_S[s]) - float(a_P.sum())
    caption = f"From {decimal(from_what, signed=True)} at the baseline"
    if rest := ordered[ON_CARD:]:
        caption += f"; {counted(len(rest), 'other value')}: {decimal(float(a_P[rest].sum()), signed=True)} together"
    return bars(
        labels,
        sizes,
        axis="attribution",
        title=f"{score} {decimal(float(card.score_S[s]), signed=True)}{_mark(explained, score)}",
        alt=f"What {score} of {card.label} comes from",
        caption=f"{caption}." if labels else "No omics value of this patient is off its baseline.",
    )


def _predicted(card: Card, task: str) -> str:
    """Calibrated probabilities, sets, numbers, risks and bounds; curves of survival are told by `predict`."""
    start = f"{task}/"
    told = {name.removeprefix(start): v for name, v in card.predicted.items() if name.startswith(start)}
    hidden = ["survival_", *(["probability/"] if any(name.startswith("calibrated/") for name in told) else [])]
    return ", ".join(
        f"{name.removeprefix('probability/').removeprefix('calibrated/').replace('_', ' ')} "
        f"{value if isinstance(value, str) else decimal(value)}"
        for name, value in told.items()
        if not name.startswith(tuple(hidden))
    )


def _by_modality(explained: Explained, card: Card, score: Score) -> str:
    of = explained.modalities
    own = of[(of["patient"] == card.label) & (of["task"] == score.task) & (of["score"] == score.name)]
    return f"{score.name}: " + ", ".join(
        f"{name} {decimal(share, signed=True)}" for name, share in zip(own["modality"], own["share"], strict=True)
    )
