"""What few labelled patients are worth: this model, the same network from scratch, and linear models."""

from __future__ import annotations

from finetune.answer import OURS, Entry
from finetune.figures.few_labels import few_labels as curve
from foundation.measures.names import plain_name
from foundation.page import Cell, Page
from foundation.wording import decimal, interval, p_number


def few_labels(page: Page, entry: Entry) -> None:
    """Add the curve of label efficiency, and what it says in numbers."""
    by_labels = entry.get("by_labels") or {}
    if not by_labels:
        return
    page.subsection("With few labels")
    page.text(
        "The same folds and the same test patients, with so many labelled training patients in each fold; whatever is "
        "chosen is chosen among them. Test patients are the same in every row."
    )
    everything = entry.get("training_patients")
    curves: dict[str, dict[int, Entry]] = {}
    for labels, arms in by_labels.items():
        for arm, score in arms.items():
            curves.setdefault(arm, {})[int(labels)] = score
    if everything:
        for arm, score in {"ours": entry, **(entry.get("baselines") or {})}.items():
            if arm in curves:
                curves[arm][everything] = score
    named = {OURS if arm == "ours" else arm: scores for arm, scores in curves.items()}
    measure = plain_name(entry["metric"])
    caption = "Means over folds with 95\u00a0% intervals by bootstrap over test patients. The dashed line is chance."
    page.figures([curve(named, measure=measure, chance=entry["chance"], caption=caption)])
    rows = [
        [
            labels,
            OURS if arm == "ours" else arm,
            Cell(decimal(score.get("mean"))),
            Cell(interval(score.get("ci95"))),
            Cell("" if arm == "ours" else decimal((score.get("difference") or {}).get("value"), signed=True)),
            Cell("" if arm == "ours" else interval((score.get("difference") or {}).get("ci95"), signed=True)),
            Cell(_p((score.get("difference") or {}).get("p_value"), arm)),
        ]
        for labels, arms in by_labels.items()
        for arm, score in arms.items()
    ]
    header = ["labelled patients", "who learns", measure, "95 % interval", f"{OURS} less this", "95 % interval", "p"]
    page.table(header, rows)


def _p(value: float | None, arm: str) -> str:
    return "" if arm == "ours" or value is None else p_number(value)
