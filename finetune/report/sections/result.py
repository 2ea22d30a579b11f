"""The section on the result: the score beside its baselines, other metrics, and figures of the predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from finetune.config import KEPT
from finetune.report.answer import THIS_MODEL, Entry, made_of, measure_of, method_named, of_kept, subject
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
    "found regions": "a linear model of what is found in the scans of the regions that were drawn on others",
    "clinical + found regions": "a linear model of these and the clinical covariates",
    "from scratch": "the same network, trained for the task without pretraining",
    "kept without pretraining": "what would be kept of the methods that know nothing of the pretrained model",
    "frozen probe": "the pretrained model unchanged, with only a linear layer trained on it",
    "DoRA": "the pretrained model with low-rank adapters that learn lengths apart from directions",
    "all weights": "the pretrained model with all its weights trained",
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
    if entry.get("kept"):
        _kept(page, entry["kept"])
    if entry.get("blocks"):
        _blocks(page, entry["blocks"])
    _metrics(page, entry)
    if pictures:
        page.subsection("What it predicts")
        who = "what is kept" if entry.get("kept") else THIS_MODEL
        page.text(f"By {who}. Each test patient is predicted by models that were trained without this patient.")
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
    kept = entry.get("kept")
    first = KEPT if kept else THIS_MODEL
    own = kept or entry
    rows = [[first, Cell(decimal(own.get("mean"))), Cell(interval(own.get("ci95"))), GAP, GAP, GAP]]
    others = of_kept(entry)["baselines"]
    if kept:
        others = {THIS_MODEL: {**entry, "difference": (kept.get("differences") or {}).get("ours")}} | others
    for name, score in others.items():
        less = score.get("difference") or {}
        p_value = less.get("p_value")
        rows.append(
            [
                f"{name} (reads what is left out)" if score.get("reads_left_out") else name,
                Cell(decimal(score.get("mean"))),
                Cell(interval(score.get("ci95"))),
                Cell(decimal(less.get("value"), signed=True)),
                Cell(interval(less.get("ci95"), signed=True)),
                GAP if p_value is None else Cell(p_number(p_value)),
            ]
        )
    page.table(
        ["model", "value", "95 % interval", f"{first} minus this one", "95 % interval", "p"],
        rows,
        f"{measure_of(entry)}, the mean over folds, on the same patients for all; above 0 {subject(entry)} is better",
    )


def _meanings(page: Page, baselines: Iterable[str]) -> None:
    told = [f"{name} is {MEANINGS[name]}" for name in baselines if name in MEANINGS]
    if told:
        page.text(f"Of the baselines, {'; '.join(told)}.")


def _own(entry: Entry) -> dict[str, Entry]:
    """Scores that are no baseline's: of what is kept, where something was chosen, and of this model."""
    kept = entry.get("kept")
    return {**({KEPT: kept} if kept else {}), THIS_MODEL: entry}


def _kept(page: Page, kept: Entry) -> None:
    """What the kept predictor is made of."""
    page.text(
        "What is kept for new patients is chosen within the training patients of each fold, for each task: the method "
        "under which patients of inner folds are most likely who did not teach it; or a stack of several, where it "
        "gains more than one standard error over inner folds. A stack is the sum of the methods' outputs (log hazards, "
        "log odds or standardised numbers), each times its weight."
    )
    folds = list((kept.get("cv_log_likelihood") or {}).values())
    weights = kept.get("of") or {}
    rows = [
        # The stack itself has no weight, nor has a method that was never taken.
        [method_named(name), Cell(decimal(value)), Cell(decimal(weights[name])) if name in weights else GAP]
        for name, value in _mean_of(folds).items()
    ]
    page.table(
        ["method", "log-likelihood on inner folds", "weight"],
        rows,
        "What was chosen among, in the mean over folds; of methods that predict the same, only the first",
    )
    if kept.get("for_new_patients"):
        page.text(f"For new patients, {made_of(kept['for_new_patients'])} was chosen, in the same way on all patients.")


def _blocks(page: Page, blocks: Entry) -> None:
    """What the heads of this model read, and what each part is worth."""
    rows = [
        [
            name,
            f"{block['read_in']} of {block['folds']}",
            _range(block["penalties"]),
            Cell(decimal(block["lost_without"])),
        ]
        for name, block in blocks.items()
    ]
    page.table(
        ["block", "read in folds", "ridge penalty", "log-likelihood lost without it"],
        rows,
        f"What the heads of {THIS_MODEL} read, before any training; chosen and judged on inner folds",
    )


def _range(penalties: Sequence[float]) -> str:
    low, high = min(penalties, default=0.0), max(penalties, default=0.0)
    return "–" if not penalties else f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _mean_of(folds: Sequence[Entry]) -> dict[str, float]:
    """Each name to its mean over the folds that have it."""
    of_names = {name: [fold[name] for fold in folds if name in fold] for name in dict.fromkeys(chain(*folds))}
    return {name: sum(values) / len(values) for name, values in of_names.items()}


def _metrics(page: Page, entry: Entry) -> None:
    """Every metric of what is kept and of this model, side by side."""
    own = {name: of.get("metrics") or {} for name, of in _own(entry).items()}
    rows = [
        [
            plain_name(metric),
            *(cell for scores in own.values() for cell in _value(scores.get(metric) or {})),
            Cell(decimal(next(scores[metric] for scores in own.values() if metric in scores).get("chance"))),
            _better_when(metric),
        ]
        for metric in dict.fromkeys(chain(*own.values()))
    ]
    if rows:
        values = [word for name in own for word in (method_named(name), "95 % interval")]
        page.table(["metric", *values, "chance", "better when"], rows, "All metrics")


def _value(score: Entry) -> tuple[Cell, Cell]:
    return Cell(decimal(score.get("mean"))), Cell(interval(score.get("ci95")))


def _better_when(metric: str) -> str:
    stem = metric.partition("/")[0]
    if stem in IDEAL:
        return f"nearer {IDEAL[stem]}"
    return "lower" if stem in LOWER_IS_BETTER else "higher"
