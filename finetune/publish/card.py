"""The model card of a published predictor, from what its run recorded; what was not recorded is said to be missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune.publish import checklist
from finetune.publish.bases import Base
from finetune.publish.facts import Facts
from finetune.publish.recorded import answers
from finetune.report.answer import Entry, headlines, of_kept, tasks_of
from foundation.data.preprocessing import ImageScaling
from foundation.licences import UNKNOWN
from foundation.metrics.names import plain_name
from foundation.wording import counted, decimal, interval

FEWEST = 10
"""Patients of a row of scores: fewer tell little of a model, and may tell of a patient."""

TASK_TYPES = {"survival": "other", "regression": "tabular-regression"}
"""Of the hub; all others are classifications."""


def card(facts: Facts) -> str:
    """README.md: what the hub reads on top, then words."""
    sections = [
        f"# {facts.name}",
        "Research use only. This model is no medical device, and no decision on a patient may rest on it.",
        "\n".join(f"- {sentence}" for sentence in headlines(facts.metrics)),
        _section("How to predict", _how(facts)),
        _section("What it predicts", _tasks(facts)),
        _section("What it reads", _inputs(facts)),
        stands_on(facts.stands_on),
        _section("Patients", _patients(facts)),
        _section("Results", METHODS, *(_results(entry) for entry in tasks_of(facts.metrics))),
        _section("By modalities", *(_by(entry, "by_pattern", "read from") for entry in tasks_of(facts.metrics))),
        _section("By group", *(_by(of_kept(entry), "by_group", "group") for entry in tasks_of(facts.metrics))),
        _section("Calibration", *(_calibration(entry) for entry in tasks_of(facts.metrics))),
        _section("How unlike training patients somebody is", _novelty(facts)),
        _section("Limits", _limits(facts)),
        _section("Reporting checklist", _checklist(facts)),
        _section("Versions", ", ".join(f"{name} {v}" for name, v in (facts.metrics.get("versions") or {}).items())),
        _section("How to cite", facts.about.get("citation") or f"{UNKNOWN.capitalize()} (`citation`); cite chiasma."),
    ]
    return _front_matter(facts) + "\n\n".join(filter(None, sections)) + "\n"


def _front_matter(facts: Facts) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    scored = [
        EvalResult(
            task_type=TASK_TYPES.get(entry["task"], "tabular-classification"),
            dataset_type="private",
            dataset_name=str(facts.metrics.get("cohort", UNKNOWN)),
            dataset_split="out of fold",
            metric_type=entry["metric"],
            metric_name=f"{plain_name(entry['metric'])}, {entry['endpoint']}",
            metric_value=round(float(of_kept(entry)["mean"]), 4),
        )
        for entry in tasks_of(facts.metrics)
        if of_kept(entry).get("mean") is not None
    ]
    kinds = sorted({m.kind for m in facts.preprocessing.modalities.values()})
    tags = ["chiasma", "multimodal", "oncology", *kinds, *(entry["task"] for entry in tasks_of(facts.metrics))]
    data = ModelCardData(
        license=facts.licence,
        library_name="chiasma",
        tags=[*dict.fromkeys(tags)],
        model_name=facts.name,
        eval_results=scored or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def stands_on(bases: Sequence[Base]) -> str:
    """A section on what a model was made of, and under which licences."""
    if not bases:
        return _section(
            "What it stands on", "Nothing of others: all of its weights began at random or from its cohort."
        )
    rows = [[base.part, base.name, base.licence or UNKNOWN] for base in bases]
    return _section("What it stands on", _table(["part", "name", "licence"], rows))


def _section(title: str, *texts: str) -> str:
    told = "\n\n".join(text for text in texts if text)
    return f"## {title}\n\n{told}" if told else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


METHODS = (
    "Each method was tested on the same patients. The **frozen probe** reads the pretrained model as it is; **from "
    "scratch** is the same network without pretraining; **clinical**, **omics** and **image** are linear models of "
    "these inputs; **kept without pretraining** is what would have been kept without a pretrained model."
)


def _how(facts: Facts) -> str:
    code = [
        "```python",
        "import chiasma",
        "",
        'model = chiasma.load("hf://ORGANISATION/NAME")  # or the folder',
        'table = model.predict("a/prepared/cohort")  # one row per patient',
        "```",
    ]
    return "\n".join(code) + (
        "\n\nOr `chiasma predict FOLDER COHORT --out predictions.parquet`. `chiasma describe-model FOLDER` writes the "
        "cohort.yaml that this model wants: spacing, units, transforms."
    )


def _tasks(facts: Facts) -> str:
    rows = [
        [name, entry["task"], ", ".join(entry.get("classes") or []) or "–", facts.methods[name]]
        for entry in tasks_of(facts.metrics)
        for name in [entry["endpoint"]]
    ]
    bounds = (
        "Beside each prediction stand calibrated probabilities and a set that holds the true class in "
        f"{100 * facts.level:.0f} % of patients; for survival an interval of the curve, the median time, and a time "
        "that as many reach without the event."
    )
    return f"{_table(['endpoint', 'task', 'classes', 'predicted by'], rows)}\n\n{bounds}"


def _inputs(facts: Facts) -> str:
    rows = []
    for name, scaling in facts.preprocessing.modalities.items():
        if isinstance(scaling, ImageScaling):
            told = [scaling.spacing] if isinstance(scaling.spacing, str) else [f"{s:g}" for s in scaling.spacing]
            shape = " × ".join(map(str, scaling.shape))
            what = f"{', '.join(scaling.channels)}; {shape} voxels of {' × '.join(told)} mm"
            patients = max(scaling.patients, default=0)
        else:
            unit = f", {scaling.unit}" if scaling.unit else ""
            what = f"{len(scaling.features):,} features; {scaling.values}{unit}"
            patients = scaling.patients
        rows.append([name, scaling.kind, what, f"{patients:,}"])
    table = _table(["modality", "kind", "what", "patients it was scaled on"], rows)
    return f"{table}\n\nAny subset of these will do; whatever a patient lacks is left out, not filled in."


def _patients(facts: Facts) -> str:
    splits = facts.metrics.get("splits") or {}
    left = [f"{counted(n, 'patient')}: {reason}" for reason, n in (splits.get("left_out") or {}).items()]
    lines = [
        f"- Cohort: {facts.metrics.get('cohort', UNKNOWN)}; {counted(splits.get('patients', 0), 'patient')} took part.",
        f"- Left out: {'; '.join(left) if left else 'nobody'}.",
        f"- Tested: {splits.get('tested', UNKNOWN)}, in {len(splits.get('folds') or [])} folds by {splits.get('by')}.",
        f"- Hash of the folds: `{str(splits.get('hash', UNKNOWN))[:16]}`.",
        f"- Seen in pretraining, and never tested: {splits.get('seen_train_only', 0)}.",
    ]
    for entry in tasks_of(facts.metrics):
        counts = ", ".join(f"{name} {n:,}" for name, n in (entry.get("classes") or {}).items())
        events = f"{entry['events']:,} events" if entry.get("events") is not None else ""
        lines.append(f"- {entry['endpoint']}: {entry['n']:,} tested patients; {counts or events or 'a number'}.")
        lines += [f"- {remark}" for remark in entry.get("remarks") or []]
    return "\n".join(lines)


def _results(entry: Entry) -> str:
    kept = of_kept(entry)
    rows = [["**what this model predicts with**", f"**{decimal(kept.get('mean'))}**", interval(kept.get("ci95")), "–"]]
    for name, score in kept["baselines"].items():
        less = score.get("difference") or {}
        told = f"{decimal(less.get('value'), signed=True)} ({interval(less.get('ci95'), signed=True)})"
        if less.get("value") == 0 and less.get("ci95") == [0, 0]:
            told = "the same"
        beyond = " (reads what this model may not)" if score.get("reads_left_out") else ""
        rows.append([f"{name}{beyond}", decimal(score.get("mean")), interval(score.get("ci95")), told])
    rows.append(["chance", decimal(entry.get("chance")), "–", "–"])
    title = f"**{entry['endpoint']}**: {plain_name(entry['metric'])}, out of fold, {entry['n']:,} patients"
    return f"{title}\n\n{_table(['method', 'value', '95 % interval', 'this model minus it'], rows)}"


def _by(entry: Entry, part: str, title: str) -> str:
    scored = {name: score for name, score in (entry.get(part) or {}).items() if score.get("mean") is not None}
    found = {name: score for name, score in scored.items() if score["n"] >= FEWEST}
    few = len(scored) - len(found)
    if not found:
        return ""
    ordered = sorted(found.items(), key=lambda item: -item[1]["n"])
    rows = [[name, f"{s['n']:,}", decimal(s["mean"]), interval(s.get("ci95"))] for name, s in ordered]
    of = " (of the adapted model)" if part == "by_pattern" else ""
    head = f"**{entry['endpoint']}**: {plain_name(entry['metric'])}{of}"
    rest = f"\n\n{counted(few, 'row')} of fewer than {FEWEST} patients left out." if few else ""
    return f"{head}\n\n{_table([title, 'patients', 'value', '95 % interval'], rows)}{rest}"


def _calibration(entry: Entry) -> str:
    found = (of_kept(entry).get("calibration") or {}).items()
    rows = [
        [group, plain_name(name), f"{score['n']:,}", decimal(score.get("mean")), interval(score.get("ci95"))]
        for group, numbers in found
        for name, score in (numbers.get("scores") or {}).items()
    ]
    rows += [
        [group, f"p of {plain_name(name)}", f"{numbers['n']:,}", decimal(value), "–"]
        for group, numbers in found
        for name, value in (numbers.get("p_values") or {}).items()
    ]
    if not rows:
        return ""
    return f"**{entry['endpoint']}**\n\n{_table(['group', 'metric', 'patients', 'value', '95 % interval'], rows)}"


def _novelty(facts: Facts) -> str:
    rows = [
        [unit, fault, f"{area:.2f}", f"{document['flagged'][fault]:.0%}", "yes" if document["shown"] else "no"]
        for unit, document in facts.novelty.items()
        for fault, area in document["auroc"].items()
    ]
    if not rows:
        return ""
    told = "A score of each modality is shown where it sees every fault that was made on purpose, on training patients:"
    return f"{told}\n\n{_table(['modality', 'fault', 'AUROC', 'of those with it flagged', 'shown'], rows)}"


def _limits(facts: Facts) -> str:
    return "\n".join(
        [
            f"- It was trained on one cohort, {facts.metrics.get('cohort', UNKNOWN)}; its run tested it on no other.",
            "- A patient of any other disease, organ or treatment is out of scope.",
            "- Probabilities are those of the cohort's own shares of classes and of its follow-up.",
            "- Intended use: research on cohorts of the same disease that were measured in the same way.",
        ]
    )


def _checklist(facts: Facts) -> str:
    rows = checklist.rows(answers(facts), facts.about)
    told = (
        f"After CLAIM (2024) and TRIPOD+AI. What is {UNKNOWN} stands with its key: a line of `{checklist.FILE}` in the "
        "run folder, such as `design: retrospective, two centres`, answers it when the run is published again."
    )
    return f"{told}\n\n{_table(['item', 'CLAIM', 'TRIPOD+AI', 'answer'], rows)}"
