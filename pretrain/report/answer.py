"""The answer on top of a pretraining report: a sentence on how often retrieval finds the right patient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundation.wording import listed, p_text, percent

SIGNIFICANT = 0.05


def headline(retrieval: Mapping[str, Mapping[str, Any]]) -> str:
    """What retrieval found, in a sentence or two; where it is not better than chance, that comes first."""
    measured = {name: result for name, result in retrieval.items() if "recall@10" in result}
    if not measured:
        return "Retrieval could not be measured: too few held-out patients have two views to match."
    failed = [name for name, result in measured.items() if not _beats_chance(result)]
    name, result = next(iter(measured.items()))
    query, answer = name.split("->")
    found = (
        f"among the first 10 of {result['n']:,} in {percent(result['recall@10'], 1)} of cases "
        f"(chance {percent(result['chance@10'], 1)}, {p_text(result['p_value'])})"
    )
    if name in failed:
        first = f"Not better than chance: from {query} alone, the right patient's {answer} is {found}."
    else:
        first = f"From {query} alone, the right patient's {answer} is {found}."
    others = [other for other in failed if other != name]
    if not others:
        return first
    words = f"{listed([direction(other) for other in others])} {'is' if len(others) == 1 else 'are'}"
    second = f"{words} not better than chance."
    return f"{second} {first}" if name not in failed else f"{first} {second}"


def _beats_chance(result: Mapping[str, Any]) -> bool:
    return result["p_value"] < SIGNIFICANT and result["recall@10"] > result["chance@10"]


def direction(name: str) -> str:
    """The key of a direction of retrieval as a reader sees it: from → to."""
    return name.replace("->", " → ")
