"""The section on groups, such as cancers: the score of each, and where a baseline is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.config import KEPT
from finetune.report.answer import THIS_MODEL, Entry, of_kept, subject
from finetune.report.figures.forest import Row, forest
from foundation.metrics.names import plain_name
from foundation.report.page import Cell, Page
from foundation.wording import counted, decimal, interval, listed


def groups(page: Page, entry: Entry) -> None:
    """Add a table of groups, ours against the baselines, and say in words where ours is below the best of them."""
    scores: Mapping[str, Any] = of_kept(entry).get("by_group") or {}
    if not scores:
        return
    page.subsection("By group")
    page.text(_in_words(scores, subject(entry)))
    rows = [
        Row(f"{name} ({counted(score.get('n') or 0, 'patient')})", score, baseline=_best(score)[1])
        for name, score in scores.items()
    ]
    caption = "Points with 95\u00a0% intervals by bootstrap over patients."
    page.figures([forest(rows, measure=plain_name(entry["metric"]), chance=entry["chance"], caption=caption)])
    _table(page, entry, scores)


def _in_words(scores: Mapping[str, Entry], who: str) -> str:
    compared = {name: score for name, score in scores.items() if None not in (score.get("mean"), _best(score)[1])}
    below = {name: _best(score) for name, score in compared.items() if _best(score)[1] > score["mean"]}
    if not compared:
        return "No group could be compared with a baseline."
    if not below:
        return f"{who} is below the best baseline in none of {len(compared)} groups.".capitalize()
    told = [
        f"{name} ({decimal(scores[name]['mean'])}; {baseline} {decimal(value)})"
        for name, (baseline, value) in below.items()
    ]
    return (
        f"In {len(below)} of {len(compared)} groups {who} is below the best baseline of that group: "
        f"{listed(told)}. "
        "That baseline was picked after seeing all scores, which favours it."
    )


def _best(score: Entry) -> tuple[str, Any]:
    """The best baseline of a group, and its score, or None."""
    known = {name: value for name, value in (score.get("baselines") or {}).items() if value is not None}
    return max(known.items(), key=lambda item: item[1], default=("", None))


def _table(page: Page, entry: Entry, scores: Mapping[str, Entry]) -> None:
    first = KEPT if entry.get("kept") else THIS_MODEL
    adapted = (entry.get("by_group") or {}) if entry.get("kept") else {}
    baselines = list(dict.fromkeys(name for score in scores.values() for name in score.get("baselines") or {}))
    rows = []
    for name, score in scores.items():
        of_baseline = score.get("baselines") or {}
        rows.append(
            [
                name,
                score.get("n") or 0,
                Cell(decimal(score.get("mean"))),
                Cell(interval(score.get("ci95"))),
                *([Cell(decimal((adapted.get(name) or {}).get("mean")))] if adapted else []),
                *(Cell(decimal(of_baseline.get(baseline))) for baseline in baselines),
                Cell(_less_best(score)),
            ]
        )
    others = [*([THIS_MODEL] if adapted else []), *baselines]
    header = ["group", "patients", first, "95 % interval", *others, f"{first} less the best"]
    page.table(header, rows, f"{plain_name(entry['metric'])} by group; ▼ marks where a baseline is better")


def _less_best(score: Entry) -> str:
    _, best = _best(score)
    if best is None or score.get("mean") is None:
        return "–"
    return f"{'▼ ' if best > score['mean'] else ''}{decimal(score['mean'] - best, signed=True)}"
