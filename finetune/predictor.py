"""The one predictor: a fine-tuned model and its tasks, from records to predictions; a run folder is all it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from finetune.methods.adapted import EVERYTHING, Adapted
from finetune.methods.adapter import read as read_adapter
from finetune.tasks.base import Task
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align_part
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.errors import CheckpointError
from foundation.model import model_folder
from foundation.model.embedding import batches
from foundation.model.view import FUSED, View
from foundation.progress import Progress
from foundation.training.parallel.base import usable_device

ADAPTER, MODEL = "adapter", "model"
"""Folders of a fine-tuning run."""

NOTHING = "none"
"""In place of the names of modalities: the model read nothing of a patient."""


@dataclass(frozen=True)
class Predictor:
    """What a run leaves for new patients.

    Attributes:
        adapted: The model with a head for every task, on its device.
        tasks: By name, finished.
        preprocessing: What was learned of the values that the model reads, then of those that its heads alone read.
        modalities: That may be seen of a patient.
    """

    adapted: Adapted
    tasks: dict[str, Task]
    preprocessing: Preprocessing
    modalities: tuple[str, ...]

    @classmethod
    def read(cls, run: Path, device: torch.device | None = None, adapter: Path = Path(ADAPTER)) -> Predictor:
        """Read a fine-tuning run; the cohort that it was trained on is not needed.

        Args:
            run: Folder with ``adapter`` and ``model``.
            device: Where to; by default the GPU where there is one.
            adapter: Of several that stand on the model, where in the run folder it is.

        Raises:
            CheckpointError: Something is missing, damaged, or does not belong together.
        """
        for part in (Path(MODEL), adapter):
            if not (run / part).is_dir():
                raise CheckpointError(
                    f"cannot predict for new patients: it has no folder `{part}`",
                    where=str(run),
                    fix="name the folder of a fine-tuning run that ended with `final: true`",
                )
        model, preprocessing = model_folder.read(run / MODEL)
        adapted, tasks, document = read_adapter(run / adapter, model.to(device or usable_device()))  # type: ignore[arg-type]
        return cls(adapted, tasks, preprocessing.joined(adapted.reading.heads_only), document.modalities)

    def align(self, cohort: PreparedCohort) -> Aligned:
        """A cohort as this model reads it.

        Raises:
            DataError: It was prepared otherwise, or has too few of the features that the model knows.
        """
        return align_part(self.preprocessing, cohort).only(self.modalities)

    def outputs(self, aligned: Aligned, rows: np.ndarray, progress: Progress | None = None) -> dict[str, Tensor]:
        """Outputs [N, ...] of every head for some records, with all that each has; `progress` is told of records."""
        return read_several({"": self}, aligned, rows, progress)[""]

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs [B, ...] of every head for a batch, with all that each record has."""
        return self.adapted(batch)[EVERYTHING]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.adapted.parameters()).device

    @torch.no_grad()
    def predict(
        self,
        cohort: PreparedCohort | Aligned,
        rows: np.ndarray | None = None,
        subsets: Sequence[tuple[str, ...]] = (),
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Predict records: with all that each has and, of those who have it, with each subset of modalities alone.

        Args:
            cohort: A prepared cohort, or one that `align` gave.
            rows: Of the cohort; all by default.
            subsets: Of modalities; all are joined from one pass of each tower over each part of its modalities.
            progress: Told of records.

        Returns:
            Columns ``row``; ``seen``, a subset or `EVERYTHING`; ``modalities`` that were read of the patient, as
            ``mri+rna``; and those of each task behind its name.
        """
        aligned = cohort if isinstance(cohort, Aligned) else self.align(cohort)
        rows = np.arange(len(aligned.cohort)) if rows is None else rows
        data = CohortDataset(aligned, rows)
        frames = [
            frame
            for batch in batches(self.adapted, data, rows, progress=progress, label="predicting")
            for frame in self._frames(batch, subsets)
        ]
        return pd.concat(frames, ignore_index=True)

    def _frames(self, batch: Batch, subsets: Sequence[tuple[str, ...]]) -> Iterator[pd.DataFrame]:
        """Predictions of a batch, view by view."""
        has: dict[str, np.ndarray] = {EVERYTHING: np.ones(len(batch), dtype=bool)}
        views = {EVERYTHING: View(FUSED)}
        for subset in subsets:
            everything_B = batch.host_present_BM[:, [batch.modalities.index(name) for name in subset]]
            everything_B = np.logical_and.reduce(everything_B, axis=1)
            if everything_B.any():
                has["+".join(subset)] = np.asarray(everything_B)
                views["+".join(subset)] = View(FUSED, subset)
        for name, outputs in self.adapted(batch, views).items():
            here = torch.from_numpy(np.flatnonzero(has[name])).to(batch.device)
            yield self._frame(batch, name, has[name], {task: output[here] for task, output in outputs.items()})

    def _frame(self, batch: Batch, seen: str, has_B: np.ndarray, outputs: dict[str, Tensor]) -> pd.DataFrame:
        at = np.flatnonzero(has_B)
        columns = {
            "row": batch.rows.numpy(force=True)[at],
            "seen": np.full(len(at), seen, dtype=object),
            "modalities": patterns(batch.host_present_BM, batch.modalities)[at],
        }
        groups = np.array(batch.groups, dtype=object)[at].astype(str)
        for name, task in self.tasks.items():
            predicted = task.predict(outputs[name], groups)
            columns |= {f"{name}/{column}": values for column, values in predicted.items()}
        return pd.DataFrame(columns)


@torch.no_grad()
def read_several(
    readers: Mapping[str, Callable[[Batch], Mapping[str, Tensor]]],
    aligned: Aligned,
    rows: np.ndarray,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> dict[str, dict[str, Tensor]]:
    """What several make of some records, each of which is read once.

    Args:
        readers: By name: predictors, and whatever else makes tensors [B, ...] by name of a batch.
        aligned: The cohort as all of them read it.
        rows: Of the cohort.
        progress: Told of records.
        device: Where batches go; by default where the predictors are.

    Raises:
        DataError: A record is damaged: nobody else can stand for a patient who is predicted.
    """
    models = nn.ModuleList(one.adapted for one in readers.values() if isinstance(one, Predictor))
    parts: dict[str, dict[str, list[Tensor]]] = {name: {} for name in readers}
    data = CohortDataset(aligned, rows, stop_above=0.0)
    for batch in batches(models, data, rows, progress=progress, label="predicting", device=device):
        for name, read in readers.items():
            for key, values in read(batch).items():
                parts[name].setdefault(key, []).append(values)
    return {name: {key: torch.cat(found) for key, found in of.items()} for name, of in parts.items()}


def patterns(present_BM: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """[B] what is there of each record, as ``mri+rna``."""
    unique, which = np.unique(present_BM, axis=0, return_inverse=True)
    names = ["+".join(n for n, here in zip(modalities, row, strict=True) if here) or NOTHING for row in unique]
    return np.array(names, dtype=object)[which.reshape(-1)]
