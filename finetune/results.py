"""What a run writes from its folds' files: metrics.json (baselines, oracle), predictions.parquet, the report."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.config import OURS, FinetuneConfig
from finetune.evaluation.evaluate import Frames, TaskEvaluation, where
from finetune.fold import FINAL, LINEAR, Method
from finetune.methods.adapted import EVERYTHING
from finetune.methods.network import CHOICE, PREDICTIONS, STEPS
from finetune.outcomes import remarks
from finetune.report.page import write_report
from finetune.resuming import FOLDS
from finetune.study import Study
from foundation.errors import ConfigError
from foundation.files.whole import replacing, write_json
from foundation.report.page import Picture

ORACLE_NAMES = {"auroc": "auroc_responder"}
"""What truth/oracle.json calls a metric, where that differs."""


def write_results(study: Study, out: Path, seconds: float, oracle: dict[str, float]) -> dict[str, Any]:
    """Write predictions.parquet, metrics.json, the adapter and the report; returns the metrics."""
    config, folds = study.config, study.folds.folds
    fitted = {fold.name: study.tasks(fold.train) for fold in folds}
    evaluations = [TaskEvaluation(study, name, {fold: t[name] for fold, t in fitted.items()}) for name in study.weights]
    frames = _read(study, out, Method(OURS, config.adapt))
    others = _baselines(study, out, None)
    entries = [_entry(evaluation, frames, others) for evaluation in evaluations]
    for entry in entries:
        if entry["endpoint"] in oracle:
            entry["oracle"] = oracle[entry["endpoint"]]
    _add_few_labels(study, out, evaluations, entries)
    choices = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / FOLDS).glob(f"*/*/{CHOICE}"))]
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
            "from": config.pretrain if isinstance(config.pretrain, str) else "path",
            "tested_though_seen": int(study.seen[study.tested].sum()),
        },
        "adaptation": next(choice["adaptation"] for choice in choices if choice["method"] == OURS),
        "cohort": study.cohort.manifest.name,
        "modalities": list(study.modalities),
        "seed": config.seed,
        "seconds": round(seconds, 1),
        "versions": {name: importlib.metadata.version(name) for name in ("chiasma", "torch", "peft", "timm")},
    }
    _write_predictions(study, frames, out)
    steps = [path.read_text(encoding="utf-8") for path in sorted((out / FOLDS).glob(f"*/*/{STEPS}"))]
    (out / STEPS).write_text("".join(steps), encoding="utf-8")
    write_json(out / "metrics.json", metrics)
    pictures: dict[str, list[Picture]] = {e.name: e.pictures(_seen_all(frames)) for e in evaluations}
    write_report(out, pictures)
    if config.final:
        _publish_final(out)
    return metrics


def _entry(evaluation: TaskEvaluation, frames: Frames, others: dict[str, Frames]) -> dict[str, Any]:
    """A task's part of metrics.json."""
    task = evaluation.task
    ours = evaluation.parts(_seen_all(frames))
    theirs = {name: parts for name, frames in others.items() if (parts := evaluation.parts(frames))}
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
        "baselines": {name: evaluation.against(ours, parts) for name, parts in theirs.items()},
        "with_baseline": evaluation.with_baseline(frames, others, theirs),
        "by_modality_subset": evaluation.by_subset(frames),
        "by_pattern": evaluation.by_pattern(_seen_all(frames)),
        "by_group": evaluation.by_group(ours, theirs),
    }


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
        name = task.name
        with contextlib.suppress(KeyError, TypeError, IndexError):
            best = known[name][ORACLE_NAMES.get(task.primary, task.primary)]["oracle"]
            reached |= {} if best is None else {name: float(best)}
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
    return {name: frames for name, frames in found.items() if frames}


def _read(study: Study, out: Path, method: Method) -> Frames:
    paths = {fold.name: out / FOLDS / fold.name / method.folder / PREDICTIONS for fold in study.folds.folds}
    return {fold: pd.read_parquet(path) for fold, path in paths.items() if path.is_file()}


def _seen_all(frames: Frames) -> Frames:
    return where(frames, "seen", EVERYTHING)


def _write_predictions(study: Study, frames: Frames, out: Path) -> None:
    """predictions.parquet: out of fold, a row per patient (and fold, where splits are repeated)."""
    table = pd.concat([frame.assign(fold=fold) for fold, frame in _seen_all(frames).items()], ignore_index=True)
    table.insert(0, "patient", study.cohort.patients[table["row"].to_numpy()])
    table.insert(1, "fold", table.pop("fold"))
    partial = out / "predictions.partial"
    table.drop(columns=["row", "seen"]).sort_values(["patient", "fold"]).to_parquet(partial, index=False)
    partial.replace(out / "predictions.parquet")


def _publish_final(out: Path) -> None:
    """The adapter that learned from everybody, and the model below it, at the top of the run folder."""
    import shutil

    for part in ("adapter", "model"):
        with replacing(out / part) as partial:
            shutil.copytree(out / FOLDS / FINAL / OURS / part, partial, dirs_exist_ok=True)
