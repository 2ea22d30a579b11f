"""What a run writes from its folds' files: metrics.json (baselines, oracle), predictions.parquet, the report."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.config import KEPT, OURS, UNPRETRAINED, FinetuneConfig
from finetune.evaluation.evaluate import Frames, TaskEvaluation, where
from finetune.fold import FINAL, LINEAR, Method
from finetune.kept_predictor import gather
from finetune.methods.adapted import EVERYTHING
from finetune.methods.baselines import BASELINES
from finetune.methods.found import FILE as FOUND_FILE
from finetune.methods.kept import FILE as KEPT_FILE
from finetune.methods.linear import MODELS, readable
from finetune.methods.network import CHOICE, PREDICTIONS, STEPS
from finetune.outcomes import remarks
from finetune.predictor import ADAPTER, MODEL
from finetune.report.answer import named
from finetune.report.page import write_report
from finetune.resuming import FOLDS, read_json
from finetune.study import Study
from foundation.errors import ConfigError
from foundation.files.whole import replacing, write_json
from foundation.report.page import Picture

ORACLE_NAMES = {"auroc": ("auroc_responder", "macro_auroc")}
"""What truth/oracle.json calls a metric, where that differs: of ordered classes, and of two."""


def write_results(study: Study, out: Path, seconds: float, oracle: dict[str, float]) -> dict[str, Any]:
    """Write predictions.parquet, metrics.json, the adapter and the report; returns the metrics."""
    config, folds = study.config, study.folds.folds
    fitted = {fold.name: study.tasks(fold.train) for fold in folds}
    evaluations = [TaskEvaluation(study, name, {fold: t[name] for fold, t in fitted.items()}) for name in study.weights]
    frames = _read(study, out, Method(OURS, config.adapt))
    others = _baselines(study, out, None)
    kept = _read(study, out, Method(KEPT))
    entries = [
        _entry(evaluation, frames, others) | _kept(evaluation, out, kept, {OURS: _seen_all(frames), **others})
        for evaluation in evaluations
    ]
    choices = [json.loads(text) for text in _of_methods(out, CHOICE)]
    for entry in entries:
        entry["blocks"] = _blocks(choices, entry["endpoint"])
        if entry["endpoint"] in oracle:
            entry["oracle"] = oracle[entry["endpoint"]]
    _add_few_labels(study, out, evaluations, entries)
    metrics = {
        **entries[0],
        "other_tasks": entries[1:],
        "chosen": [{k: v for k, v in choice.items() if k != "adaptation"} for choice in choices],
        "splits": {
            **study.folds.counts(),
            "tested": len(study.tested),
            "inner_by_patient": study.inner_by_patient(),
        },
        "pretrain": {
            "from": _begins_with(config),
            "tested_though_seen": int(study.seen[study.tested].sum()),
        },
        **_finding(out),
        "adaptation": next(choice["adaptation"] for choice in choices if choice["method"] == OURS),
        "cohort": study.cohort.manifest.name,
        "modalities": list(study.modalities),
        "seed": config.seed,
        "seconds": round(seconds, 1),
        "versions": {name: importlib.metadata.version(name) for name in ("chiasma", "torch", "peft", "timm")},
    }
    _write_predictions(study, frames, kept, out)
    (out / STEPS).write_text("".join(_of_methods(out, STEPS)), encoding="utf-8")
    write_json(out / "metrics.json", metrics)
    pictures: dict[str, list[Picture]] = {e.name: e.pictures(kept or _seen_all(frames)) for e in evaluations}
    write_report(out, pictures)
    if config.final:
        _publish_final(out, config.members())
    return metrics


def _finding(out: Path) -> dict[str, Any]:
    """How well regions were found in test patients: of each annotation and region mean, median and number of images."""
    values: dict[str, dict[str, list[float]]] = {}
    for text in _of_methods(out, FOUND_FILE):
        for annotation, regions in json.loads(text).items():
            for region, of_fold in regions.items():
                values.setdefault(annotation, {}).setdefault(region, []).extend(of_fold)
    told = {
        annotation: {
            region: {"dice": float(np.mean(v)), "median": float(np.median(v)), "images": len(v)}
            for region, v in regions.items()
            if v
        }
        for annotation, regions in values.items()
    }
    return {"found": told} if told else {}


def _begins_with(config: FinetuneConfig) -> str:
    """What methods that are not from scratch begin with."""
    if isinstance(config.pretrain, Path):
        return "path"
    return "weights" if config.network is not None and not config.untrained else config.pretrain


def _of_methods(out: Path, name: str) -> list[str]:
    """What a file of each method of each fold says, where it has one; a folder with a dot is not yet whole."""
    return [path.read_text(encoding="utf-8") for path in sorted((out / FOLDS).glob(f"[!.]*/[!.]*/{name}"))]


def _entry(evaluation: TaskEvaluation, frames: Frames, others: dict[str, Frames]) -> dict[str, Any]:
    """A task's part of metrics.json."""
    task = evaluation.task
    ours = evaluation.parts(_seen_all(frames))
    theirs = {name: parts for name, frames in others.items() if (parts := evaluation.parts(frames))}
    beyond = {*BASELINES} - {*readable(evaluation.study)}
    config = next(
        c
        for c, name in zip(evaluation.study.config.tasks, evaluation.study.weights, strict=True)
        if name == evaluation.name
    )
    return {
        "task": config.task,
        "endpoint": evaluation.name,
        "metric": task.primary,
        "chance": task.chance,
        **evaluation.counts(),
        **evaluation.summary(ours),
        "remarks": remarks(evaluation.study, task),
        "metrics": evaluation.metrics(ours) | evaluation.calibration_scores(_seen_all(frames)),
        "calibration": evaluation.calibration(_seen_all(frames)),
        "baselines": {
            name: evaluation.against(ours, parts) | ({"reads_left_out": True} if name in beyond else {})
            for name, parts in theirs.items()
        },
        "by_modality_subset": evaluation.by_subset(frames),
        "by_pattern": evaluation.by_pattern(_seen_all(frames)),
        "by_group": evaluation.by_group(ours, theirs),
    }


def _kept(evaluation: TaskEvaluation, out: Path, frames: Frames, others: dict[str, Frames]) -> dict[str, Any]:
    """What is said of the predictor that is kept: its scores, what it is made of, and how it compares."""
    parts = evaluation.parts(frames)
    documents = [read_json(out / FOLDS / fold / KEPT / KEPT_FILE)[evaluation.name] for fold in frames]
    theirs = {name: found for name, frames in others.items() if (found := evaluation.parts(frames))}
    baselines = {name: found for name, found in theirs.items() if name != OURS}
    return {
        "kept": {
            **evaluation.summary(parts),
            "of": _shares([document["weights"] for document in documents]),
            "choices": _choices([document["weights"] for document in documents]),
            "for_new_patients": _for_new_patients(out, evaluation.name),
            "cv_log_likelihood": {fold: d["cv_log_likelihood"] for fold, d in zip(frames, documents, strict=True)},
            "metrics": evaluation.metrics(parts) | evaluation.calibration_scores(frames),
            "differences": {name: evaluation.against(parts, found)["difference"] for name, found in theirs.items()},
            "by_group": evaluation.by_group(parts, baselines),
            "calibration": evaluation.calibration(frames),
        }
    }


def _blocks(choices: Sequence[dict[str, Any]], task: str) -> dict[str, dict[str, Any]]:
    """What our heads read for a task: each block, in how many folds, and what is lost without it where it is read."""
    own = [c["blocks"][task] for c in choices if c["method"] == OURS and c["labels"] is None and c["fold"] != FINAL]
    found = {}
    for block in own[0] if own else ():
        read = [of_fold[block] for of_fold in own if of_fold[block] is not None]
        lost = [each["lost_without"] for each in read if each["lost_without"] is not None]
        found[block] = {
            "read_in": len(read),
            "folds": len(own),
            "penalties": [each["penalty"] for each in read],
            "lost_without": float(np.mean(lost)) if lost else None,
        }
    return found


def _choices(weights: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """What the predictor of a fold is made of, and in how many folds; the most frequent first."""
    made = Counter(tuple(named(of_fold)) for of_fold in weights)
    return [{"methods": list(methods), "folds": folds} for methods, folds in made.most_common()]


def _for_new_patients(out: Path, task: str) -> list[str]:
    """Methods that the predictor of the run folder is made of for a task; none where the run keeps nothing."""
    path = out / FOLDS / FINAL / KEPT / KEPT_FILE
    return named(read_json(path)[task]["weights"]) if path.is_file() else []


def _shares(weights: Sequence[dict[str, float]]) -> dict[str, float]:
    """Method to its weight, in the mean over folds; the largest first."""
    names = dict.fromkeys(name for each in weights for name in each)
    mean = {name: float(np.mean([each.get(name, 0.0) for each in weights])) for name in names}
    return dict(sorted(mean.items(), key=lambda item: -item[1]))


def read_oracle(config: FinetuneConfig, study: Study) -> dict[str, float]:
    """Task to what an oracle reaches in its primary metric.

    Raises:
        ConfigError: The file does not tell it of any task.
    """
    path = config.oracle
    if path is None:
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        what = "cannot be read as JSON" if path.is_file() else "no such file"
        raise ConfigError(what, where=f"oracle: {path}", fix="correct it, or write oracle=null") from None
    reached = {}
    for task in study.unfitted:
        for metric in ORACLE_NAMES.get(task.primary, (task.primary,)):
            with contextlib.suppress(KeyError, TypeError, IndexError):
                best = known[task.name][metric]["oracle"]
                reached |= {} if best is None else {task.name: float(best)}
    if not reached:
        raise ConfigError(
            "holds none of the tasks' metrics",
            where=f"oracle: {path}",
            fix="name the truth/oracle.json of a simulated cohort, or write oracle=null",
        )
    return reached


def _add_few_labels(
    study: Study, out: Path, evaluations: Sequence[TaskEvaluation], entries: Sequence[dict[str, Any]]
) -> None:
    """Scores of each method with few labelled training patients."""
    training = round(float(np.mean([len(study.one_each(fold.train)) for fold in study.folds.folds])))
    for labels in study.config.labels:
        methods = {OURS: _read(study, out, Method(OURS, study.config.adapt, labels)), **_baselines(study, out, labels)}
        for evaluation, entry in zip(evaluations, entries, strict=True):
            parts = {name: evaluation.parts(_seen_all(frames)) for name, frames in methods.items()}
            scored = {name: evaluation.against(parts[OURS], those) for name, those in parts.items() if those}
            entry.setdefault("by_labels", {})[str(labels)] = scored
            entry["training_patients"] = training


def _baselines(study: Study, out: Path, labels: int | None) -> dict[str, Frames]:
    """Name of everything that ours is compared with, to its predictions."""
    found: dict[str, Frames] = {
        name: _read(study, out, Method(name, adapt, labels))
        for name, adapt in study.config.methods().items()
        if name != OURS
    }
    for fold in study.folds.folds:
        for path in sorted((out / FOLDS / fold.name / Method(LINEAR, None, labels).folder).glob("*.parquet")):
            found.setdefault(path.stem, {})[fold.name] = pd.read_parquet(path)  # type: ignore[index]
    if labels is None:
        found[UNPRETRAINED] = _read(study, out, Method(UNPRETRAINED))
    return {name: frames for name, frames in found.items() if frames}


def _read(study: Study, out: Path, method: Method) -> Frames:
    paths = {fold.name: out / FOLDS / fold.name / method.folder / PREDICTIONS for fold in study.folds.folds}
    return {fold: pd.read_parquet(path) for fold, path in paths.items() if path.is_file()}


def _seen_all(frames: Frames) -> Frames:
    return where(frames, "seen", EVERYTHING)


def _write_predictions(study: Study, frames: Frames, kept: Frames, out: Path) -> None:
    """predictions.parquet: out of fold, a row per patient (and fold, where splits are repeated).

    Columns of what is kept begin with its name.
    """
    ours, theirs = (
        pd.concat([frame.assign(fold=fold) for fold, frame in found.items()], ignore_index=True)
        for found in (_seen_all(frames), kept)
    )
    theirs = theirs.drop(columns="seen").rename(columns=lambda name: f"{KEPT}/{name}" if "/" in name else name)
    table = ours.merge(theirs, on=["row", "fold"], validate="one_to_one")
    table.insert(0, "patient", study.cohort.patients[table["row"].to_numpy()])
    table.insert(1, "fold", table.pop("fold"))
    partial = out / "predictions.partial"
    table.drop(columns=["row", "seen"]).sort_values(["patient", "fold"]).to_parquet(partial, index=False)
    partial.replace(out / "predictions.parquet")


def _publish_final(out: Path, members: Sequence[str]) -> None:
    """The adapter that learned from everybody, the model below it and what is kept, at the top of the run folder."""
    import shutil

    final = out / FOLDS / FINAL
    for part in (ADAPTER, MODEL):
        with replacing(out / part) as partial:
            shutil.copytree(final / OURS / part, partial, dirs_exist_ok=True)
    networks = {name: final / Method(name).folder / ADAPTER for name in members if name != OURS}
    gather(out, final / Method(KEPT).folder, networks, final / Method(LINEAR).folder / MODELS)
