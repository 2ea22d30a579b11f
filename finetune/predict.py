"""`chiasma predict`: a prepared cohort that was never seen, through the predictor that a run kept, into a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from finetune.config import KEPT
from finetune.kept_predictor import DOCUMENT, KeptPredictor
from finetune.predictor import ADAPTER, MODEL
from finetune.uncertainty.base import LEVEL, refuse_level
from foundation.cohort.store import PreparedCohort
from foundation.data.preprocessing import Preprocessing
from foundation.files.hashing import sha256_of
from foundation.files.parts import write_table
from foundation.model.seen_patients import SeenPatients
from foundation.progress import Progress, Silent, Within
from foundation.wording import counted

TRAINED_ON = "trained_on"
"""Column: which part of training a patient took part in."""


@dataclass(frozen=True)
class Run:
    """A fine-tuning run, or a published one, that predicts.

    Attributes:
        folder: Of the run.
        predictor: What it kept.
        seen: Part of training to the patients who took part in it; None where the folder does not say.
    """

    folder: Path
    predictor: KeptPredictor
    seen: Mapping[str, SeenPatients | None]

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read a run folder; see `KeptPredictor.read`."""
        predictor = KeptPredictor.read(folder)
        parts = {"pretraining": SeenPatients.read(folder / MODEL), "fine-tuning": SeenPatients.read(folder / ADAPTER)}
        return cls(folder, predictor, parts)

    def table(
        self,
        cohort: PreparedCohort,
        rows: np.ndarray | None = None,
        progress: Progress | None = None,
        level: float = LEVEL,
    ) -> pd.DataFrame:
        """Predictions of records of a cohort, one row each.

        Args:
            cohort: A prepared cohort.
            rows: Of it; all by default.
            progress: Told of records.
            level: Share of patients whose outcome should be within the sets, intervals and bounds that are told.

        Returns:
            ``patient``, ``time_point``; ``trained_on``, ``pretraining`` or ``fine-tuning`` or both of a patient who
            took part in it; and the columns of `KeptPredictor.predict`.

        Raises:
            ConfigError: The level is out of its range.
            DataError: The cohort was prepared otherwise, or shares too little with what the model knows.
        """
        refuse_level(level)
        rows = np.arange(len(cohort)) if rows is None else rows
        found = self.predictor.predict(cohort, rows, progress, level).drop(columns="row")
        found.insert(1, "time_point", cohort.time_points[rows].astype(str))
        found.insert(2, TRAINED_ON, self._taught_by(cohort.patients[rows]))
        return found

    def sentences(self, cohort: PreparedCohort) -> list[str]:
        """What a cohort and the model do not share, whom it cannot predict, and whom it was trained on."""
        told = self.predictor.sentences(cohort)
        for name in (name for name, seen in self.seen.items() if seen is None):
            told.append(f"Who took part in {name} is not recorded: column `{TRAINED_ON}` cannot name them.")
        known = int((self._taught_by(cohort.patients) != "").sum())
        if known:
            records = counted(known, "record")
            told.append(
                f"{records} of patients who took part in training (column `{TRAINED_ON}`): "
                "these predictions are better than those of new patients would be."
            )
        return told

    def _taught_by(self, patients: np.ndarray) -> np.ndarray:
        """[N] which part of training each patient took part in, as ``pretraining+fine-tuning``; empty for none."""
        told = np.full(len(patients), "", dtype=object)
        for name, seen in self.seen.items():
            here = seen.among(patients) if seen is not None else np.zeros(len(patients), dtype=bool)
            told[here] = [f"{before}+{name}" if before else name for before in told[here]]
        return told


def predict(
    folder: Path, cohort: Path | str, out: Path, progress: Progress | None = None, level: float = LEVEL
) -> list[str]:
    """Predict every record of a cohort, into a Parquet file as `Run.table` has it; stopped, the next call goes on.

    Args:
        folder: Of a fine-tuning run, or of a published one.
        cohort: Folder or URL of a prepared cohort.
        out: The file.
        progress: Told of records.
        level: See `Run.table`.

    Returns:
        Sentences for whoever predicts: see `Run.sentences`.

    Raises:
        CheckpointError: The run folder is damaged, or kept nothing for new patients.
        ConfigError: The level is out of its range, or something else is at `out`.
        DataError: The cohort is damaged, was prepared otherwise, or shares too little with what the model knows.
    """
    refuse_level(level)
    run, prepared, told = Run.open(folder), PreparedCohort(cohort), progress or Silent()
    prepared.verify(told)
    sentences = run.sentences(prepared)
    identity = {"cohort": prepared.hash, "predictor": sha256_of(folder / KEPT / DOCUMENT), "level": f"{level:g}"}

    def part(rows: np.ndarray) -> pd.DataFrame:
        return run.table(prepared, rows, Within(told), level)

    told.start("predicting", len(prepared), "records")
    write_table(out, np.arange(len(prepared)), part, identity, doing="is being predicted", skipped=told.advance)
    told.finish()
    return sentences


def preprocessing_of(folder: Path) -> Preprocessing:
    """Of a fine-tuning run or a model folder, everything that it reads of a cohort.

    Raises:
        CheckpointError: It is neither, or damaged.
    """
    if not (folder / KEPT).is_dir():
        return Preprocessing.read(folder / MODEL if (folder / MODEL).is_dir() else folder)
    predictor = KeptPredictor.read(folder)
    modalities = dict(Preprocessing.read(folder / MODEL).modalities)
    for network in predictor.networks.values():
        modalities |= network.preprocessing.modalities
    found = {finder.name for finder in predictor.finders.values()}
    known = {name: s for name, s in modalities.items() if name in predictor.modalities and name not in found}
    return Preprocessing.read(folder / MODEL).model_copy(update={"modalities": known})
