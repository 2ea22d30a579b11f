"""The linear baselines of a fold, as predictions of its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from finetune.methods import baselines
from finetune.methods.adapted import EVERYTHING
from finetune.methods.image_features import ImageFeatures
from finetune.splits import Fold
from finetune.study import Study
from finetune.tasks.base import Task


def write_linear(study: Study, fold: Fold, folder: Path) -> None:
    """Fit every linear baseline for every task, and write what each predicts of the test patients.

    Args:
        study: Of the run.
        fold: Of the study.
        folder: Gets a file for each baseline, called like it.
    """
    names = [*study.modalities, *({baselines.CLINICAL} & set(study.cohort.modalities) - set(study.modalities))]
    fitting = _Fitting(study, fold, study.inner(fold), names, ImageFeatures(study.cohort))
    for baseline in baselines.available(study.cohort, names):
        columns = {
            f"{task.name}/{column}": values
            for task in study.unfitted
            for column, values in fitting.columns(baseline, task).items()
        }
        frame = pd.DataFrame({"row": fitting.test, "seen": EVERYTHING, **columns})
        frame.to_parquet(folder / f"{baseline}.parquet", index=False)


class _Fitting:
    """Fits baselines on one fold."""

    def __init__(
        self, study: Study, fold: Fold, inner: Sequence[Fold], modalities: Sequence[str], images: ImageFeatures
    ) -> None:
        self.study, self.fold, self.inner = study, fold, inner
        self.modalities, self.images = modalities, images
        self.test = study.one_each(fold.test)

    def columns(self, baseline: str, task: Task) -> dict[str, np.ndarray]:
        """Columns [N] of the predictions for test patients; NaN for those without a label."""
        return task.columns({endpoint: self._predicted(baseline, endpoint) for endpoint in task.endpoints})

    def _predicted(self, baseline: str, endpoint: str) -> dict[str, np.ndarray]:
        fold = self._labelled(self.fold, endpoint)
        inner = [self._labelled(one, endpoint) for one in self.inner]
        found = baselines.predict(baseline, self.study.cohort, endpoint, fold, inner, self.modalities, self.images)
        known_N = np.isin(self.test, fold.test)
        spread = {part: np.full((len(self.test), *values.shape[1:]), np.nan) for part, values in found.items()}
        for part, values in found.items():
            spread[part][known_N] = values
        return spread

    def _labelled(self, fold: Fold, endpoint: str) -> Fold:
        """One record of each patient who has a label."""
        parts = self.study.endpoints[endpoint]
        labelled_N = parts["code"] >= 0 if "code" in parts else np.isfinite(next(iter(parts.values())))
        sides = (self.study.one_each(side[labelled_N[side]]) for side in (fold.train, fold.test))
        return Fold(fold.name, *sides)
