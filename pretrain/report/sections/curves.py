"""The section on the course of training: curves of all that metrics.jsonl has, in which order and with which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foundation.report.page import Page
from foundation.wording import listed
from pretrain.report.answer import direction
from pretrain.report.figures.curves import Series, curves

MOST_PANELS = 15

QUANTITIES = {
    "learning_rate": "learning rate",
    "lr": "learning rate",
    "gradient_norm": "norm of the gradient",
    "samples_per_second": "samples per second",
    "waiting": "share of time waiting for data",
}
"""What is logged beside losses, in the order in which it is drawn."""

BOOKKEEPING = {"step", "epoch", "samples_seen", "split", "seconds", "rows", "processes"}


def add_curves(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add a panel per quantity that was logged, the first `MOST_PANELS` of them; the others are named."""
    series = gather_series(rows)
    if not series:
        return
    page.section("The course of training")
    caption = "Training is averaged over neighbouring steps." if len(rows) > 200 else ""
    left = series[MOST_PANELS:]
    if left:
        names = ", ".join(one.name for one in left)
        caption += f" {len(left)} more quantities are in metrics.jsonl: {names}."
    shown = series[:MOST_PANELS]
    page.figures([curves(shown, alt=f"Curves of {listed([one.name for one in shown])}", caption=caption.strip())])


def gather_series(rows: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Every number that was logged, over the steps: losses first, then retrieval, learning rate and speed."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        split = row.get("split")
        if split not in ("train", "held_out"):
            continue
        for key, value in _numbers(row):
            points.setdefault(key, {"train": [], "held_out": []})[split].append((row["step"], value))
    order = list(QUANTITIES)
    # The sort is stable: within losses and within retrieval the order is that of the log.
    ranked = sorted(points, key=lambda key: (2 + order.index(key)) if key in order else int(key.startswith("recall@")))
    return [Series(QUANTITIES.get(key, key), points[key]["train"], points[key]["held_out"]) for key in ranked]


def _numbers(row: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for key, value in row.items():
        if key == "retrieval" and isinstance(value, Mapping):
            for name, result in value.items():
                if "recall@10" in result:
                    yield f"recall@10, {direction(name)}", result["recall@10"]
        elif key not in BOOKKEEPING and isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
