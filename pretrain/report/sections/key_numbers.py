"""The key numbers below the answer: parameters, steps, samples seen, time, speed, and steps that were skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foundation.report.page import Page
from foundation.wording import duration
from pretrain.stragglers import sentence, slowest


def add_key_numbers(page: Page, metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add what there is to say of size, length and speed; rows are those of metrics.jsonl."""
    facts = []
    train = [row for row in rows if row.get("split") == "train"]
    parameters = metrics.get("parameters")
    if parameters is not None:
        total = sum(parameters.values()) if isinstance(parameters, Mapping) else parameters
        facts.append(("parameters", _large(total)))
    if train:
        facts.append(("steps", f"{train[-1]['step']:,}"))
        facts.append(("samples seen", f"{train[-1].get('samples_seen', 0):,}"))
    if metrics.get("seconds") is not None:
        facts.append(("time", duration(metrics["seconds"])))
    # The first steps warm the machine up; a median leaves them and single pauses out.
    for key, name, form in (
        ("samples_per_second", "samples per second", "{:,.0f}"),
        ("waiting", "time waiting for data", "{:.1%}"),
    ):
        values = [row[key] for row in train if row.get(key) is not None]
        if values:
            facts.append((name, form.format(float(np.median(values)))))
    alone = [row["seconds_alone"] for row in train if len(row.get("seconds_alone") or ()) > 1]
    # A run that went on in another number of processes is judged by the last one.
    totals = np.sum([each for each in alone if len(each) == len(alone[-1])], axis=0).tolist() if alone else []
    number = slowest(totals, sum(row["seconds"] for row in train)) if totals else None
    if number is not None:
        facts.append(("process that the others wait for", sentence(totals, number)))
    bad = sum(row.get("split") == "non-finite" for row in rows)
    if bad:
        facts.append(("steps skipped (loss or gradient not finite)", f"{bad:,}"))
    if facts:
        page.facts(facts)


def _large(number: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"
