"""The predictor that is kept: what inner folds choose for each task among the methods of a fold and their stack."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from finetune import kept_predictor
from finetune.methods.adapted import EVERYTHING
from finetune.methods.held_out import TESTED, HeldOut, finish
from finetune.methods.stack import InnerFold, Stacked, choose
from finetune.splits import Fold
from finetune.study import Study
from finetune.tasks.base import Task
from finetune.uncertainty.base import Known, Uncertain
from finetune.uncertainty.novelty import Novelty
from finetune.uncertainty.of_task import learn, predictions
from foundation.data.alignment import align
from foundation.data.preprocessing import Preprocessing
from foundation.finding.cohort import FoundCohort

FILE = "kept.json"
PREDICTIONS = "predictions.parquet"


def write_kept(
    study: Study, fold: Fold, methods: Mapping[str, Path], folder: Path, *, model: Path | None = None
) -> None:
    """Choose what is kept of the methods of a fold, and write what it predicts of the test patients, if there are any.

    Args:
        study: Of the run.
        fold: Of the study.
        methods: Name to the file of what each says of patients who did not teach it, the most cautious method first.
        folder: Gets `FILE` and `PREDICTIONS`.
        model: Folder of the model that ours stands on, where what predicts for new patients is wanted too, beside the
            methods themselves.
    """
    said = {name: HeldOut.read(path) for name, path in methods.items()}
    test, tasks = study.one_each(fold.test), study.tasks(fold.train)
    columns: dict[str, np.ndarray] = {}
    document, uncertain = {}, {}
    for name, task in tasks.items():
        stacked, held_out = choose_kept(study, task, said)
        document[name] = {"weights": stacked.weights, "cv_log_likelihood": stacked.cv_log_likelihood}
        finish(task, study, held_out)
        uncertain[name] = _uncertainty(study, task, held_out)
        if len(test):
            has = kept_predictor.readable(study.cohort, test, study.modalities)
            columns |= predictions(task, uncertain[name], held_out.at(name, test), study.groups(test), has)
    (folder / FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")
    if model is not None:
        aligned = align(Preprocessing.read(model), study.cohort).only(study.modalities)
        novelty = Novelty.learn(aligned, fold.train)
        declared = study.cohort.manifest.endpoints
        weights = {name: found["weights"] for name, found in document.items()}
        kept_predictor.write(folder, tasks, uncertain, novelty, weights, study.modalities, declared)
        if isinstance(study.cohort, FoundCohort):
            kept_predictor.write_finders(folder, study.cohort.finders)
    if len(test):
        pd.DataFrame({"row": test, "seen": EVERYTHING, **columns}).to_parquet(folder / PREDICTIONS, index=False)


def _uncertainty(study: Study, task: Task, held_out: HeldOut) -> list[Uncertain]:
    """Learned from training patients of whom something is said by what they did not teach."""
    rows, inner = held_out.taught_none(task.name)
    has = kept_predictor.readable(study.cohort, rows, study.modalities)
    return learn(task, held_out.at(task.name, rows), Known({}, study.truth(rows), has, inner), study.groups(rows))


def choose_kept(study: Study, task: Task, said: Mapping[str, HeldOut]) -> tuple[Stacked, HeldOut]:
    """What is kept for a task, and what that says of held-out patients.

    Args:
        study: Of the run.
        task: Fitted on the training patients.
        said: Method to what it says, the most cautious method first.
    """
    name = task.name
    rows, inner = _of_all(name, [*said.values()])
    labelled = task.labelled(study.truth(rows))
    rows, inner = rows[labelled], inner[labelled]
    stacked = choose(task, [_inner_fold(study, name, said, rows[inner == number]) for number in np.unique(inner)])
    everybody = next(iter(said.values()))
    tested = everybody.rows[everybody.inner == TESTED]
    both, numbers = np.append(rows, tested), np.append(inner, np.full(len(tested), TESTED))
    outputs = stacked.outputs({method: torch.nan_to_num(of.at(name, both)) for method, of in said.items()})
    return stacked, HeldOut(both, numbers, {name: outputs})


def _of_all(task: str, said: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training patients of whom every method says something, ascending, and their inner folds."""
    rows, inner = said[0].taught_none(task)
    for other in said[1:]:
        here = np.isin(rows, other.taught_none(task)[0])
        rows, inner = rows[here], inner[here]
    order = np.argsort(rows)
    return rows[order], inner[order]


def _inner_fold(study: Study, task: str, said: Mapping[str, HeldOut], rows: np.ndarray) -> InnerFold:
    # What one of several endpoints is not known for is not asked about.
    outputs = {method: torch.nan_to_num(of.at(task, rows)) for method, of in said.items()}
    return InnerFold(outputs, study.labels(rows, torch.device("cpu")), study.groups(rows).tolist())
