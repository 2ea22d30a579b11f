"""The linear baselines of a fold: what each says of held-out patients, its predictions, and on request its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from finetune.methods import baselines
from finetune.methods.adapted import EVERYTHING
from finetune.methods.held_out import TESTED, HeldOut, finish
from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import LearnedInputs
from finetune.methods.linear_model import LinearModel
from finetune.splits import Fold
from finetune.study import Study
from finetune.tasks.base import Task

MODELS = "models"
"""Folder with a folder for each baseline, in which each endpoint has its model."""


def readable(study: Study) -> list[str]:
    """Baselines that read nothing but what may be seen of a patient in this run; simple ones first."""
    return baselines.available(study.cohort, study.modalities)


def write_linear(study: Study, fold: Fold, folder: Path, *, keep: bool) -> None:
    """Fit every linear baseline for every task, and write what each says of patients who did not teach it.

    Args:
        study: Of the run.
        fold: Of the study.
        folder: Gets for each baseline a file of tensors as `HeldOut` writes it and, where somebody is tested, one of
            predictions, both called like it.
        keep: Whether to write the models too, into `MODELS`.
    """
    # The clinical baselines stand beside every result, also where the model may not read what they do.
    names = [*study.modalities, *({baselines.CLINICAL} & set(study.cohort.modalities) - set(study.modalities))]
    inner, images = study.inner(fold), ImageFeatures(study.cohort)
    for baseline in baselines.available(study.cohort, names):
        fitting = _Fitting(study, fold, inner, images)
        models = {endpoint: fitting.model(baseline, endpoint, names) for endpoint in study.endpoints}
        held_out = fitting.held_out(models)
        held_out.write(folder / f"{baseline}.safetensors")
        if len(fold.test):
            fitting.predictions(held_out).to_parquet(folder / f"{baseline}.parquet", index=False)
        if keep:
            for endpoint, model in models.items():
                model.write(folder / MODELS / baseline / endpoint)


def labelled(study: Study, fold: Fold, endpoint: str) -> Fold:
    """A fold's patients who have a label of an endpoint, one record of each, ascending."""
    known_N = baselines.labelled_N(study.endpoints[endpoint])
    sides = (np.sort(study.one_each(side[known_N[side]])) for side in (fold.train, fold.test))
    return Fold(fold.name, *sides)


class _Fitting:
    """Fits one baseline on one fold."""

    def __init__(self, study: Study, fold: Fold, inner: Sequence[Fold], images: ImageFeatures) -> None:
        self.study, self.fold, self.inner = study, fold, inner
        self.test = study.one_each(fold.test)
        self.images, self.known = images, LearnedInputs()

    def model(self, baseline: str, endpoint: str, modalities: Sequence[str]) -> LinearModel:
        """A baseline for an endpoint."""
        cohort, train = self.study.cohort, labelled(self.study, self.fold, endpoint).train
        inner = [labelled(self.study, fold, endpoint) for fold in self.inner]
        shared = (modalities, self.images, self.known)
        balanced = self._balanced(endpoint)
        return baselines.fit(baseline, cohort, endpoint, train, inner, *shared, balanced=balanced)

    def held_out(self, models: Mapping[str, LinearModel]) -> HeldOut:
        """What a baseline says of training patients, fitted without each, and of the test patients."""
        rows_K = [self.study.one_each(fold.test) for fold in self.inner]
        rows = np.concatenate([*rows_K, self.test])
        numbers = np.repeat([*range(len(rows_K)), TESTED], [*map(len, rows_K), len(self.test)])
        said = {endpoint: self._said(model, rows, numbers == TESTED) for endpoint, model in models.items()}
        return HeldOut(rows, numbers, {task.name: self._outputs(task, said) for task in self._tasks()})

    def predictions(self, held_out: HeldOut) -> pd.DataFrame:
        """Columns of all tasks for the test patients."""
        columns: dict[str, np.ndarray] = {}
        for task in self._tasks():
            finish(task, self.study, held_out)
            predicted = task.predict(held_out.at(task.name, self.test), self.study.groups(self.test))
            columns |= {f"{task.name}/{column}": values for column, values in predicted.items()}
        return pd.DataFrame({"row": self.test, "seen": EVERYTHING, **columns})

    def _said(self, model: LinearModel, rows: np.ndarray, tested: np.ndarray) -> dict[str, np.ndarray]:
        """What a model says of rows; NaN of training patients whom no inner fold holds out."""
        train = labelled(self.study, self.fold, model.endpoint).train
        inner = [labelled(self.study, fold, model.endpoint) for fold in self.inner]
        said = model.predict(self.study.cohort, rows[tested], self.images)
        balanced = self._balanced(model.endpoint)
        without = baselines.out_of_fold(
            model, self.study.cohort, train, inner, self.images, self.known, balanced=balanced
        )
        place = np.minimum(np.searchsorted(train, rows), len(train) - 1)
        taught = ~tested & (train[place] == rows)
        found = {part: np.full((len(rows), *values.shape[1:]), np.nan) for part, values in said.items()}
        for part, values in found.items():
            values[tested] = said[part]
            if part in without:
                values[taught] = without[part][place[taught]]
        return found

    def _outputs(self, task: Task, said: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        return task.outputs_of({endpoint: said[endpoint] for endpoint in task.endpoints})

    def _balanced(self, endpoint: str) -> bool:
        """Whether every class counts as much to its task: a stack mixes the two, so they answer one question."""
        return all(task.balanced for task in self.study.unfitted if endpoint in task.endpoints)

    def _tasks(self) -> list[Task]:
        """Fitted on the training patients."""
        return [*self.study.tasks(self.fold.train).values()]
