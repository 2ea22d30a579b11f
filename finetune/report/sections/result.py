"""The section on the result: the score beside its baselines, other metrics, and figures of the predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune.report.answer import THIS_MODEL, Entry, difference, measure_of
from finetune.report.figures.forest import Row, forest
from finetune.tasks.base import IDEAL, LOWER_IS_BETTER
from foundation.metrics.names import plain_name
from foundation.report.page import GAP, Cell, Page, Picture
from foundation.wording import decimal, interval, p_number

MOST_CLASSES = 12

MEANINGS = {
    "clinical": "a linear model of the clinical covariates",
    "image": "a linear model of the scans' intensities on a coarse grid",
    "omics": "a linear model of the principal components of the omics",
    "clinical + omics": "a linear model of these two together",
    "from scratch": "the same network, trained for the task without pretraining",
    "frozen probe": "the pretrained model unchanged, with only a linear layer trained on it",
}
"""What baselines are, for those who have not met their names."""


def result(page: Page, entry: Entry, pictures: Sequence[Picture]) -> None:
    """Add the comparison with baselines, all metrics and a task's own pictures."""
    classes = entry.get("classes") or {}
    if classes:
        _classes(page, classes)
    for remark in entry.get("remarks") or []:
        page.text(remark)
    page.subsection("Beside its baselines")
    page.figures([_forest(entry)])
    baselines = entry.get("baselines") or {}
    if baselines:
        _baselines(page, entry)
        _meanings(page, baselines)
    if entry.get("with_baseline"):
        _averaged(page, entry["with_baseline"])
    _metrics(page, entry)
    if pictures:
        page.subsection("What it predicts")
        page.text("Each test patient is predicted by a model that was trained without this patient.")
        page.figures(pictures)


def _classes(page: Page, classes: Entry) -> None:
    largest = sorted(classes.items(), key=lambda item: -item[1])
    shown = [f"{name} {count:,}" for name, count in largest[:MOST_CLASSES]]
    rest = len(classes) - len(shown)
    page.text(f"Patients by class: {', '.join(shown)}{f' and {rest} rarer ones' if rest else ''}.")


def _forest(entry: Entry) -> Picture:
    others = sorted((entry.get("baselines") or {}).items(), key=lambda item: -(item[1].get("mean") or 0))
    rows = [Row(name, score) for name, score in _own(entry).items()]
    rows += [Row(name, score, ours=False) for name, score in others]
    caption = "Points with 95\u00a0% intervals by bootstrap over patients; all on the same folds and patients. Chance: "
    caption += "the best answer that is the same for all patients of a fold."
    if entry.get("oracle") is not None:
        caption += " Best possible: the score of an oracle that knows the truth behind this simulated cohort."
    return forest(rows, measure=measure_of(entry), chance=entry["chance"], oracle=entry.get("oracle"), caption=caption)


def _baselines(page: Page, entry: Entry) -> None:
    rows = [
        [name, Cell(decimal(score.get("mean"))), Cell(interval(score.get("ci95"))), GAP, GAP, GAP]
        for name, score in _own(entry).items()
    ]
    for name, score in entry["baselines"].items():
        less = score.get("difference") or {}
        p_value = less.get("p_value")
        rows.append(
            [
                name,
                Cell(decimal(score.get("mean"))),
                Cell(interval(score.get("ci95"))),
                Cell(decimal(less.get("value"), signed=True)),
                Cell(interval(less.get("ci95"), signed=True)),
                GAP if p_value is None else Cell(p_number(p_value)),
            ]
        )
    page.table(
        ["model", "value", "95 % interval", f"{THIS_MODEL} less it", "95 % interval", "p"],
        rows,
        f"{measure_of(entry)}; a difference above 0 favours {THIS_MODEL}; both are scored on the same patients",
    )


def _meanings(page: Page, baselines: Iterable[str]) -> None:
    told = [f"{name} is {MEANINGS[name]}" for name in baselines if name in MEANINGS]
    if told:
        page.text(f"Of the baselines, {'; '.join(told)}.")


def _own(entry: Entry) -> dict[str, Entry]:
    """Scores that are no baseline's: of this model, and of its mean with a linear one where there is that."""
    both = entry.get("with_baseline")
    return {THIS_MODEL: entry, _named(both): both} if both else {THIS_MODEL: entry}


def _named(both: Entry) -> str:
    return f"{THIS_MODEL} averaged with {both['baseline']}"


def _averaged(page: Page, both: Entry) -> None:
    compared = difference(both)
    page.text(
        f"{_named(both).capitalize()} is not a baseline: it is the mean of the two predictions for each patient. "
        f"Its score is {decimal(both.get('mean'))}"
        + (f"; compared with {both['baseline']} alone it is {compared}." if compared else ".")
    )


def _metrics(page: Page, entry: Entry) -> None:
    rows = list(_metric_rows(entry.get("metrics") or {}))
    if rows:
        page.table(["metric", "value", "95 % interval", "chance", "better when"], rows, f"All metrics of {THIS_MODEL}")


def _metric_rows(metrics: Entry) -> Iterable[list[str | Cell]]:
    for name, score in metrics.items():
        yield [
            plain_name(name),
            Cell(decimal(score.get("mean"))),
            Cell(interval(score.get("ci95"))),
            Cell(decimal(score.get("chance"))),
            _better_when(name),
        ]


def _better_when(metric: str) -> str:
    stem = metric.partition("/")[0]
    if stem in IDEAL:
        return f"nearer {IDEAL[stem]}"
    return "lower" if stem in LOWER_IS_BETTER else "higher"
