"""The linear baselines of a fold: fitted for its tasks, and what they predict of its test patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from finetune.methods import baselines
from finetune.methods.adapted import EVERYTHING
from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import LearnedInputs
from finetune.methods.linear_model import LinearModel
from finetune.splits import Fold
from finetune.study import Study
from finetune.tasks.base import Task


def write_linear(study: Study, fold: Fold, folder: Path) -> dict[str, dict[str, LinearModel]]:
    """Fit every linear baseline for every task, and write what each predicts of the test patients.

    Args:
        study: Of the run.
        fold: Of the study.
        folder: Gets a file for each baseline, called like it.

    Returns:
        Baseline to endpoint to the model that was fitted on the training patients.
    """
    names = [*study.modalities, *({baselines.CLINICAL} & set(study.cohort.modalities) - set(study.modalities))]
    inner, images, models = study.inner(fold), ImageFeatures(study.cohort), {}
    for baseline in baselines.available(study.cohort, names):
        fitting = _Fitting(study, fold, inner, names, images, baseline)
        columns = {
            f"{task.name}/{column}": values
            for task in study.unfitted
            for column, values in fitting.columns(task).items()
        }
        frame = pd.DataFrame({"row": fitting.test, "seen": EVERYTHING, **columns})
        frame.to_parquet(folder / f"{baseline}.parquet", index=False)
        models[baseline] = fitting.models
    return models


def labelled(study: Study, fold: Fold, endpoint: str) -> Fold:
    """A fold's patients who have a label of an endpoint, one record of each."""
    known_N = baselines.labelled_N(study.endpoints[endpoint])
    sides = (study.one_each(side[known_N[side]]) for side in (fold.train, fold.test))
    return Fold(fold.name, *sides)


class _Fitting:
    """Fits one baseline on one fold."""

    def __init__(
        self,
        study: Study,
        fold: Fold,
        inner: Sequence[Fold],
        modalities: Sequence[str],
        images: ImageFeatures,
        baseline: str,
    ) -> None:
        self.study, self.fold, self.inner = study, fold, inner
        self.modalities, self.images, self.known = modalities, images, LearnedInputs()
        self.baseline = baseline
        self.models: dict[str, LinearModel] = {}
        self.test = study.one_each(fold.test)

    def columns(self, task: Task) -> dict[str, np.ndarray]:
        """Columns [N] of the predictions for test patients; NaN for those without a label."""
        return task.columns({endpoint: self._predicted(endpoint) for endpoint in task.endpoints})

    def _predicted(self, endpoint: str) -> dict[str, np.ndarray]:
        cohort, fold = self.study.cohort, labelled(self.study, self.fold, endpoint)
        inner = [labelled(self.study, one, endpoint) for one in self.inner]
        model = baselines.fit(
            self.baseline, cohort, endpoint, fold.train, inner, self.modalities, self.images, self.known
        )
        self.models[endpoint] = model
        found = model.predict(cohort, fold.test, self.images)
        known_N = np.isin(self.test, fold.test)
        spread = {part: np.full((len(self.test), *values.shape[1:]), np.nan) for part, values in found.items()}
        for part, values in found.items():
            spread[part][known_N] = values
        return spread
