"""The sentence on top of a fine-tuning report, one for each task: what speaks against the model comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.config import OURS
from foundation.metrics.names import plain_name
from foundation.wording import counted, decimal, interval, listed, p_text

THIS_MODEL = "this model"
"""What the adapted model is called beside its baselines."""

IN_IT = 0.1
"""Share of the weights from which a method is named among those that the kept predictor is made of."""

Entry = Mapping[str, Any]
"""A task's part of metrics.json, or a score in it with ``mean`` and ``ci95``."""


def tasks_of(metrics: Entry) -> list[Entry]:
    """The entries of all tasks of a run."""
    return [metrics, *(metrics.get("other_tasks") or [])]


def headlines(metrics: Entry) -> list[str]:
    """One sentence for each task, and one more where tested patients were known from pretraining."""
    return [*map(_answer, tasks_of(metrics)), *filter(None, [_seen(metrics)])]


def headline(entry: Entry) -> str:
    """What was found for one task, for a person who reads nothing else."""
    return " ".join(filter(None, [_answer(entry), _seen(entry)]))


def method_named(method: str) -> str:
    """A method in a table."""
    return THIS_MODEL if method == OURS else method


def named(weights: Mapping[str, float]) -> list[str]:
    """Methods to name, of those that a kept predictor is made of; the largest weight first."""
    ordered = sorted(weights, key=lambda name: -weights[name])
    return [name for name in ordered if weights[name] >= IN_IT * sum(weights.values())]


def made_of(methods: Sequence[str]) -> str:
    """Methods of a kept predictor, in words."""
    names = listed([method_named(name) for name in methods])
    return f"a stack of {names}" if len(methods) > 1 else f"{names} alone"


def of_kept(entry: Entry) -> Entry:
    """A task's entry with the predictor that is kept in place of the adapted model; the entry itself without one."""
    kept = entry.get("kept")
    if not kept:
        return entry
    differences = kept.get("differences") or {}
    baselines = {
        name: {**score, "difference": differences.get(name)} for name, score in (entry.get("baselines") or {}).items()
    }
    scores = {key: kept.get(key) for key in ("mean", "ci95", "folds", "by_group", "calibration")}
    return {**entry, **scores, "baselines": baselines}


def subject(entry: Entry) -> str:
    """What a task's sentences are about."""
    return "the kept predictor" if entry.get("kept") else THIS_MODEL


def best_baseline(entry: Entry) -> str | None:
    """Name of the baseline with the highest score; None where none has one.

    One that predicts the same is not compared, nor one that reads what the run leaves out: that may define the outcome.
    """
    same = _twins(entry)
    scored = {
        name: score
        for name, score in (entry.get("baselines") or {}).items()
        if score.get("mean") is not None and name not in same and not score.get("reads_left_out")
    }
    return max(scored, key=lambda name: scored[name]["mean"]) if scored else None


def beats_chance(score: Entry, chance: float) -> bool:
    """Whether chance lies below a score and its interval; of a score without interval, whether it is higher.

    Args:
        score: With its own ``chance``, where its patients are others than those of the whole result.
        chance: Of the whole result.
    """
    if score.get("mean") is None:
        return False
    own = score.get("chance")
    return min([score["mean"], *_bounds(score)]) > (chance if own is None else own)


def measure_of(entry: Entry) -> str:
    """What a task is measured by, in words."""
    name = plain_name(entry["metric"])
    groups = sum(group.get("mean") is not None for group in (entry.get("by_group") or {}).values())
    return f"mean {name} over {groups} groups" if groups > 1 else name


def difference(score: Entry) -> str:
    """How much higher or lower a method is than the other, such as ``0.016 higher (95 % …)``; empty where not known."""
    less = score.get("difference") or {}
    if less.get("value") is None:
        return ""
    bounds, p_value = _bounds(less), less.get("p_value")
    details = [f"95\u00a0% interval of the difference {interval(bounds, signed=True)}"] if bounds else []
    details += [p_text(p_value)] if p_value is not None else []
    brackets = f" ({', '.join(details)})" if details else ""
    doubt = ", which may be chance" if bounds and bounds[0] <= 0 <= bounds[1] else ""
    return f"{decimal(abs(less['value']))} {'higher' if less['value'] > 0 else 'lower'}{brackets}{doubt}"


def _answer(entry: Entry) -> str:
    name, who, entry = entry["endpoint"], subject(entry) + _made_of(entry.get("kept")), of_kept(entry)
    if entry.get("mean") is None:
        return f"{name} could not be scored: no fold gives a score ({_patients(entry)})."
    best = best_baseline(entry)
    if best is not None and entry["baselines"][best]["mean"] > entry["mean"]:
        return _lost(entry, best, who)
    first = "For" if beats_chance(entry, entry["chance"]) else "Not better than chance: for"
    rest = _runner_up(entry, best) if best is not None else "no baseline could be compared"
    twins = _twins(entry)
    if twins:
        rest += f"; {listed(twins)} {'makes' if len(twins) == 1 else 'make'} the same predictions"
    rest += _beyond(entry)
    return (
        f"{first} {name}, the {measure_of(entry)} of {who} is {_value(entry)} in {_patients(entry)}, where chance is "
        f"{entry['chance']:.3g}; {rest}."
    )


def _made_of(kept: Entry | None) -> str:
    """What is in the kept predictor, in brackets."""
    choices = (kept or {}).get("choices") or []
    if not choices:
        return ""
    first, folds = choices[0], sum(choice["folds"] for choice in choices)
    if first["folds"] == folds:
        return f" ({made_of(first['methods'])})"
    if first["folds"] == 1:
        return " (another choice in each fold)"
    return f" ({made_of(first['methods'])} in {first['folds']} of {folds} folds, other choices in the rest)"


def _beyond(entry: Entry) -> str:
    """Baselines that read what the run leaves out, and score higher than all that does not."""
    baselines = entry.get("baselines") or {}
    best = best_baseline(entry)
    most = max(entry["mean"], baselines[best]["mean"] if best else entry["mean"])
    better = {
        name: score["mean"]
        for name, score in baselines.items()
        if score.get("reads_left_out") and (score.get("mean") or 0) > most
    }
    told = [f"{name} has {decimal(mean)}" for name, mean in better.items()]
    return f"; of what this run leaves out, {listed(told)}" if told else ""


def _lost(entry: Entry, best: str, who: str) -> str:
    theirs = entry["baselines"][best]
    failed = "" if beats_chance(entry, entry["chance"]) else f", and {subject(entry)} is not better than chance"
    first = f"A baseline does better{failed}"
    if failed and not beats_chance(theirs, entry["chance"]):
        first = f"Neither {subject(entry)} nor a baseline is better than chance"
    return (
        f"{first}: for {entry['endpoint']} in {_patients(entry)}, where chance is "
        f"{entry['chance']:.3g}, the {measure_of(entry)} is {_value(theirs)} for {best} and {_value(entry)} for "
        f"{who}{_then(', that is ', difference(theirs))}{_beyond(entry)}."
    )


def _runner_up(entry: Entry, best: str) -> str:
    theirs = entry["baselines"][best]
    compared = _then(", and this is ", difference(theirs))
    return f"the best baseline, {best}, has {decimal(theirs['mean'])}{compared}"


def _then(before: str, text: str) -> str:
    return before + text if text else ""


def _value(score: Entry) -> str:
    bounds = f"95\u00a0% interval {interval(score['ci95'])}" if _bounds(score) else "no interval"
    return f"{decimal(score['mean'])} ({bounds})"


def _patients(entry: Entry) -> str:
    text = counted(entry["n"], "patient")
    return text if entry.get("events") is None else f"{text} with {counted(entry['events'], 'event')}"


def _twins(entry: Entry) -> list[str]:
    """Baselines that differ from ours in no resample, such as the frozen probe where no training was chosen."""
    differences = {name: score.get("difference") or {} for name, score in (entry.get("baselines") or {}).items()}
    return [name for name, found in differences.items() if found.get("value") == 0 and found.get("ci95") == [0, 0]]


def _seen(entry: Entry) -> str:
    seen = (entry.get("pretrain") or {}).get("tested_though_seen") or 0
    if not seen:
        return ""
    return (
        f"{counted(seen, 'patient')} of those tested {'was' if seen == 1 else 'were'} already seen in pretraining, so "
        "the scores may be too high."
    )


def _bounds(score: Entry) -> list[float]:
    return [bound for bound in score.get("ci95") or [] if bound is not None]
