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

HOLDS = ("kept/predictor.json", "model/preprocessing.json", "preprocessing.json")
"""Files of which one is in whatever was trained."""


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

        run = Run.open(self.folder)
        return run.table(_opened(cohort), level=level)

    def __repr__(self) -> str:
        return f"chiasma.load({str(self.folder)!r})"

    def embed(self, cohort: str | Path | PreparedCohort) -> pd.DataFrame:
        """Embed a prepared cohort with the pretrained model; columns as of `chiasma embed`.

        Raises:
            CheckpointError, DataError: As of `predict`.
        """
        from foundation.model import model_folder
        from pretrain.embed import Embedder

        return Embedder.open(model_folder.inside(self.folder)).table(_opened(cohort))

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
        CheckpointError: There is no such folder, it holds nothing that was trained, or what was downloaded is not what
            was published.
        ConfigError, StoreError: There is no such repository or revision; the hub cannot be reached.
    """
    from foundation.errors import CheckpointError
    from foundation.hub.address import trained

    folder = trained(place)
    if not any((folder / file).is_file() for file in HOLDS):
        what, fix = "holds no predictor and no model", "name the folder of a finished run, or of a model"
        raise CheckpointError(what, where=str(folder), fix=fix)
    return Loaded(folder)


def _opened(cohort: str | Path | PreparedCohort) -> PreparedCohort:
    from foundation.cohort.store import PreparedCohort

    if isinstance(cohort, PreparedCohort):
        return cohort
    opened = PreparedCohort(cohort)
    opened.verify()
    return opened
