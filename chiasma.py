"""chiasma in three lines: a run, a model folder or a published one is loaded, and predicts or embeds a cohort.

import chiasma

run = chiasma.load("runs/glioma-outcomes")  # or "hf://my-group/glioma-outcomes@v1"
table = run.predict("cohorts/new")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from foundation.cohort.store import PreparedCohort

__all__ = ["Loaded", "load"]


class Loaded:
    """What was trained; nothing is read before it is needed.

    Attributes:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def predict(self, cohort: str | Path | PreparedCohort, level: float = 0.9) -> pd.DataFrame:
        """Predict a prepared cohort with what a fine-tuning run kept; columns as of `chiasma predict`.

        Args:
            cohort: Its folder or URL, or opened.
            level: Share of patients whose outcome should be within the sets, intervals and bounds that are told.

        Raises:
            CheckpointError: This is a model that was not fine-tuned, or damaged.
            DataError: The cohort was prepared otherwise, or shares too little with what the model knows.
        """
        from finetune.predict import Run

        return Run.open(self.folder).table(_opened(cohort), level=level)

    def embed(self, cohort: str | Path | PreparedCohort) -> pd.DataFrame:
        """Embed a prepared cohort with the pretrained model; columns as of `chiasma embed`.

        Raises:
            CheckpointError, DataError: As of `predict`.
        """
        from foundation.model.model_folder import MODEL
        from pretrain.embed import Embedder

        inside = self.folder / MODEL
        return Embedder.open(inside if inside.is_dir() else self.folder).table(_opened(cohort))

    def template(self) -> str:
        """The cohort.yaml that it wants of new patients."""
        from finetune.predict import preprocessing_of
        from foundation.data.template import template

        return template(preprocessing_of(self.folder))


def load(place: str | Path) -> Loaded:
    """Load what was trained.

    Args:
        place: A run folder, a model folder or a published one; or ``hf://organisation/name@revision``, which is
            downloaded once and verified.

    Raises:
        CheckpointError: There is no such folder, or what was downloaded is not what was published.
        ConfigError, StoreError: There is no such repository or revision; the hub cannot be reached.
    """
    from foundation.errors import CheckpointError
    from foundation.hub.address import local

    folder = local(place)
    if not folder.is_dir():
        raise CheckpointError("no such folder", where=str(folder), fix="name the folder of a run or of a model")
    return Loaded(folder)


def _opened(cohort: str | Path | PreparedCohort) -> PreparedCohort:
    from foundation.cohort.store import PreparedCohort

    return cohort if isinstance(cohort, PreparedCohort) else PreparedCohort(cohort)
