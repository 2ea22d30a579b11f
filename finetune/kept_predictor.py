"""The predictor that a run keeps for new patients: the methods that were chosen, and their weights for each task.

The folder stands in that of the run, beside ``adapter`` and ``model``, on which methods of its own may stand.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.config import FROM_SCRATCH, FROZEN_PROBE, KEPT, OURS
from finetune.methods.fitted_tasks import learned, rebuild, told
from finetune.methods.linear_model import LinearModel
from finetune.methods.sealed import Sealed
from finetune.predictor import ADAPTER, NOTHING, Predictor, patterns
from finetune.tasks.base import Task, tasks
from foundation.cohort.store import PreparedCohort
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing
from foundation.progress import Progress
from foundation.wording import counted

DOCUMENT, TENSORS = "predictor.json", "predictor.safetensors"
LINEAR = "linear"
"""Folder of linear models, by baseline and endpoint."""

NETWORKS = {OURS: Path(ADAPTER), FROZEN_PROBE: Path(KEPT, "probe"), FROM_SCRATCH: Path(KEPT, "scratch")}
"""Methods that are networks, to their adapters in the run folder."""


class Document(Sealed):
    """predictor.json.

    Attributes:
        weights: Task to method to the weight of its outputs.
        modalities: That may be seen of a patient.
        tasks: Config of each task.
        endpoints: Name to its kind, classes, unit and causes.
    """

    format_version: Literal[1] = 1
    weights: dict[str, dict[str, float]]
    modalities: tuple[str, ...]
    tasks: list[tasks.configs()]  # type: ignore[valid-type]
    endpoints: dict[str, dict[str, Any]]

    def methods(self) -> list[str]:
        """Those that any task uses."""
        return list(dict.fromkeys(method for of_task in self.weights.values() for method in of_task))


def write(
    folder: Path,
    fitted: Mapping[str, Task],
    weights: Mapping[str, Mapping[str, float]],
    modalities: Sequence[str],
    declared: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write what is kept but for the methods themselves.

    Args:
        folder: Gets `DOCUMENT` and `TENSORS`.
        fitted: Name to task, finished.
        weights: Task to method to the weight of its outputs.
        modalities: That may be seen of a patient.
        declared: Endpoint to its entry in the cohort's manifest.
    """
    save_file(learned(fitted), folder / TENSORS)
    document = Document(
        weights={name: dict(of_task) for name, of_task in weights.items()},
        modalities=tuple(modalities),
        tasks=[task.config for task in fitted.values()],
        endpoints=told(fitted, declared),
        tensors=sha256_of(folder / TENSORS),
    )
    document.write(folder / DOCUMENT)


def gather(run: Path, kept: Path, networks: Mapping[str, Path], linear: Path) -> None:
    """Bring what is kept together in a run folder; it appears there only when it is whole.

    Args:
        run: The run folder.
        kept: Folder that `write` wrote to.
        networks: Method to its adapter, for those beside ours.
        linear: Linear models, by baseline and endpoint.
    """
    document = _read_document(kept)
    used = document.methods()
    with replacing(run / KEPT) as partial:
        for name in (DOCUMENT, TENSORS):
            shutil.copy(kept / name, partial / name)
        for method in used:
            if method not in NETWORKS:
                shutil.copytree(linear / method, partial / LINEAR / method)
            elif method in networks:
                shutil.copytree(networks[method], partial / NETWORKS[method].name)


@dataclass(frozen=True)
class KeptPredictor:
    """What a run keeps for new patients.

    Attributes:
        weights: Task to method to the weight of its outputs.
        tasks: By name, finished.
        networks: Method to the network that it is.
        linear: Method to endpoint to the linear model.
        modalities: That may be seen of a patient.
    """

    weights: Mapping[str, Mapping[str, float]]
    tasks: Mapping[str, Task]
    networks: Mapping[str, Predictor]
    linear: Mapping[str, Mapping[str, LinearModel]]
    modalities: tuple[str, ...]

    @classmethod
    def read(cls, run: Path, device: torch.device | None = None) -> KeptPredictor:
        """Read a fine-tuning run; the cohort that it was trained on is not needed.

        Args:
            run: Folder of a run that ended with `final: true`.
            device: Where networks go; by default the GPU where there is one.

        Raises:
            CheckpointError: Something is missing, damaged, or does not belong together.
        """
        folder = run / KEPT
        document = _read_document(folder)
        fitted = rebuild(document.tasks, document.endpoints, load_file(folder / TENSORS), folder, torch.device("cpu"))
        used = document.methods()
        networks = {m: Predictor.read(run, device, adapter=NETWORKS[m]) for m in used if m in NETWORKS}
        linear = {
            method: {e: LinearModel.read(folder / LINEAR / method / e) for e in document.endpoints}
            for method in used
            if method not in NETWORKS
        }
        return cls(document.weights, fitted, networks, linear, document.modalities)

    def predict(
        self, cohort: PreparedCohort, rows: np.ndarray | None = None, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Predict records with all that each has.

        Args:
            cohort: A prepared cohort.
            rows: Of the cohort; all by default.
            progress: Told of records, by each network.

        Returns:
            Columns ``patient``; ``row`` of the cohort; ``modalities`` that may be read and that the patient has, as
            ``mri+rna``; and those of each task behind its name, NaN for patients who have none of these modalities.

        Raises:
            DataError: The cohort was prepared otherwise, or shares too little with what a method knows.
        """
        rows = np.arange(len(cohort)) if rows is None else rows
        said = {m: network.outputs(network.align(cohort), rows, progress) for m, network in self.networks.items()}
        said |= {method: self._of_linear(models, cohort, rows) for method, models in self.linear.items()}
        groups, modalities = cohort.groups[rows].astype(str), self._has(cohort, rows)
        columns: dict[str, np.ndarray] = {}
        for name, task in self.tasks.items():
            each = [weight * said[method][name].cpu().double() for method, weight in self.weights[name].items()]
            predicted = task.predict(torch.stack(each).sum(dim=0), groups)
            columns |= {f"{name}/{column}": values for column, values in predicted.items()}
        table = pd.DataFrame(columns)
        table.loc[modalities == NOTHING] = np.nan
        patients = cohort.patients[rows].astype(str)
        return pd.concat([pd.DataFrame({"patient": patients, "row": rows, "modalities": modalities}), table], axis=1)

    def sentences(self, cohort: PreparedCohort) -> list[str]:
        """What a cohort and the methods do not share, and what follows, for whoever predicts.

        Raises:
            DataError: The cohort was prepared otherwise, or shares too little with what a method knows.
        """
        rows = np.arange(len(cohort))
        linear = [model for models in self.linear.values() for model in models.values()]
        told = [sentence for network in self.networks.values() for sentence in network.align(cohort).sentences()]
        told += [sentence for model in linear for sentence in model.sentences(cohort, rows)]
        if nothing := int((self._has(cohort, rows) == NOTHING).sum()):
            told.append(f"{counted(nothing, 'record')} cannot be predicted: nothing that may be read is there.")
        return list(dict.fromkeys(told))

    def _has(self, cohort: PreparedCohort, rows: np.ndarray) -> np.ndarray:
        """[N] modalities that may be read and that a record has."""
        here = [name for name in self.modalities if name in cohort.modalities]
        return patterns(cohort.present_NM[rows][:, [cohort.modalities.index(name) for name in here]], here)

    def _of_linear(
        self, models: Mapping[str, LinearModel], cohort: PreparedCohort, rows: np.ndarray
    ) -> dict[str, Tensor]:
        """Task to the outputs of a linear baseline."""
        predicted = {endpoint: model.predict(cohort, rows) for endpoint, model in models.items()}
        return {
            name: task.outputs_of({endpoint: predicted[endpoint] for endpoint in task.endpoints})
            for name, task in self.tasks.items()
        }


def _read_document(folder: Path) -> Document:
    fix = "name the folder of a fine-tuning run that ended with `final: true`"
    return Document.read(folder / DOCUMENT, folder / TENSORS, of="a kept predictor", fix=fix)
