"""The section on few labels: what each method reaches with fewer labelled training patients."""

from __future__ import annotations

from finetune.report.answer import THIS_MODEL, Entry, method_named
from finetune.report.figures.few_labels import few_labels as curve
from foundation.metrics.names import plain_name
from foundation.report.page import Cell, Page
from foundation.wording import decimal, interval, p_number


def few_labels(page: Page, entry: Entry) -> None:
    """Add the curve of label efficiency, and what it says in numbers."""
    by_labels = entry.get("by_labels") or {}
    if not by_labels:
        return
    page.subsection("With few labels")
    page.text(
        "Folds and test patients are those of the main result; only the number of labelled training patients in each "
        "fold changes. Every setting is chosen on these patients alone."
    )
    everything = entry.get("training_patients")
    curves: dict[str, dict[int, Entry]] = {}
    for labels, methods in by_labels.items():
        for method, score in methods.items():
            curves.setdefault(method, {})[int(labels)] = score
    if everything:
        for method, score in {"ours": entry, **(entry.get("baselines") or {})}.items():
            if method in curves:
                curves[method][everything] = score
    named = {method_named(method): scores for method, scores in curves.items()}
    measure = plain_name(entry["metric"])
    caption = "Means over folds with 95\u00a0% intervals by bootstrap over test patients. The dashed line is chance."
    page.figures([curve(named, measure=measure, chance=entry["chance"], caption=caption)])
    rows = [
        [
            labels,
            method_named(method),
            Cell(decimal(score.get("mean"))),
            Cell(interval(score.get("ci95"))),
            Cell("" if method == "ours" else decimal((score.get("difference") or {}).get("value"), signed=True)),
            Cell("" if method == "ours" else interval((score.get("difference") or {}).get("ci95"), signed=True)),
            Cell(_p((score.get("difference") or {}).get("p_value"), method)),
        ]
        for labels, methods in by_labels.items()
        for method, score in methods.items()
    ]
    header = [
        "labelled patients",
        "method",
        measure,
        "95 % interval",
        f"{THIS_MODEL} minus this method",
        "95 % interval",
        "p",
    ]
    page.table(header, rows)


def _p(value: float | None, method: str) -> str:
    return "" if method == "ours" or value is None else p_number(value)
