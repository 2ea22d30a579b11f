"""The predictor that a run keeps for new patients: the methods that were chosen, and their weights for each task.

The folder stands in that of the run, beside ``adapter`` and ``model``, on which methods of its own may stand.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.config import FROM_SCRATCH, FROZEN_PROBE, KEPT, OURS
from finetune.methods.fitted_tasks import learned, rebuild, told
from finetune.methods.image_features import ImageFeatures
from finetune.methods.linear_model import LinearModel
from finetune.methods.sealed import Sealed
from finetune.predictor import ADAPTER, MODEL, NOTHING, Predictor, patterns, read_several
from finetune.tasks.base import Task, tasks
from finetune.uncertainty.base import LEVEL, Uncertain, joined, parted
from finetune.uncertainty.novelty import FAR, Novelty
from finetune.uncertainty.of_task import predictions, restored, states
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align_part, not_used, refuse_nothing_shared
from foundation.data.batch import Batch
from foundation.data.preprocessing import Preprocessing
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing
from foundation.finding.cohort import FoundCohort
from foundation.finding.finder import Finder
from foundation.model import model_folder
from foundation.progress import Progress
from foundation.wording import counted

DOCUMENT, TENSORS = "predictor.json", "predictor.safetensors"
UNCERTAIN = "uncertain."
"""What the names of tensors begin with that tell how far predictions can be off."""

NOVELTY = "novelty."
"""And of those that tell what is ordinary."""

OBSERVED = "observed"
FINDERS = "finders"
"""Folder of what finds regions in images, by annotation."""

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
        novelty: Unit to how well its score sees faults.
    """

    format_version: Literal[2] = 2
    weights: dict[str, dict[str, float]]
    modalities: tuple[str, ...]
    tasks: list[tasks.configs()]  # type: ignore[valid-type]
    endpoints: dict[str, dict[str, Any]]
    novelty: dict[str, dict[str, Any]]

    def methods(self) -> list[str]:
        """Those that any task uses."""
        return list(dict.fromkeys(method for of_task in self.weights.values() for method in of_task))


def write(
    folder: Path,
    fitted: Mapping[str, Task],
    uncertain: Mapping[str, Sequence[Uncertain]],
    novelty: Novelty,
    weights: Mapping[str, Mapping[str, float]],
    modalities: Sequence[str],
    declared: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write what is kept but for the methods themselves.

    Args:
        folder: Gets `DOCUMENT` and `TENSORS`.
        fitted: Name to task, finished.
        uncertain: Task to what was learned of how far its predictions can be off.
        novelty: What was learned of which values are ordinary.
        weights: Task to method to the weight of its outputs.
        modalities: That may be seen of a patient.
        declared: Endpoint to its entry in the cohort's manifest.
    """
    known = joined({name: states(of_task) for name, of_task in uncertain.items()})
    arrays = {f"{UNCERTAIN}{key}": v for key, v in known.items()}
    arrays |= {f"{NOVELTY}{key}": v for key, v in novelty.state().items()}
    tensors = {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in arrays.items()}
    save_file({**learned(fitted), **tensors}, folder / TENSORS)
    document = Document(
        weights={name: dict(of_task) for name, of_task in weights.items()},
        modalities=tuple(modalities),
        tasks=[task.config for task in fitted.values()],
        endpoints=told(fitted, declared),
        novelty={unit: validity.document() for unit, validity in novelty.validity.items()},
        tensors=sha256_of(folder / TENSORS),
    )
    document.write(folder / DOCUMENT)


def write_finders(folder: Path, finders: Mapping[str, Finder | None]) -> None:
    """Write what finds regions in images into the folder that `write` wrote to."""
    (folder / FINDERS).mkdir()
    for annotation, finder in finders.items():
        assert finder is not None
        finder.write(folder / FINDERS / f"{annotation}.safetensors")


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
        if (kept / FINDERS).is_dir():
            shutil.copytree(kept / FINDERS, partial / FINDERS)
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
        uncertain: Task to what was learned of how far its predictions can be off.
        novelty: How unlike the training patients somebody is.
        finders: Annotation to what finds its regions in images.
    """

    weights: Mapping[str, Mapping[str, float]]
    tasks: Mapping[str, Task]
    networks: Mapping[str, Predictor]
    linear: Mapping[str, Mapping[str, LinearModel]]
    modalities: tuple[str, ...]
    uncertain: Mapping[str, Sequence[Uncertain]]
    novelty: Novelty
    finders: Mapping[str, Finder] = field(default_factory=dict)

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
        stored = load_file(folder / TENSORS)
        fitted = rebuild(document.tasks, document.endpoints, stored, folder, torch.device("cpu"))
        known = {key.removeprefix(UNCERTAIN): v.numpy() for key, v in stored.items() if key.startswith(UNCERTAIN)}
        model_folder.verify(run / MODEL)
        preprocessing = Preprocessing.read(run / MODEL)
        novelty = Novelty(preprocessing)
        ordinary = {key.removeprefix(NOVELTY): v.numpy() for key, v in stored.items() if key.startswith(NOVELTY)}
        novelty.restore(ordinary, document.novelty)
        uncertain = {name: restored(task, parted(known, name)) for name, task in fitted.items()}
        used = document.methods()
        networks = {m: Predictor.read(run, device, adapter=NETWORKS[m]) for m in used if m in NETWORKS}
        linear = {
            method: {e: LinearModel.read(folder / LINEAR / method / e) for e in document.endpoints}
            for method in used
            if method not in NETWORKS
        }
        finders = {path.stem: Finder.read(path) for path in sorted((folder / FINDERS).glob("*.safetensors"))}
        return cls(document.weights, fitted, networks, linear, document.modalities, uncertain, novelty, finders)

    def finding(self, cohort: PreparedCohort) -> PreparedCohort:
        """A cohort with what is found in its images, where anything is."""
        if not self.finders or isinstance(cohort, FoundCohort):
            return cohort
        return FoundCohort(cohort, self.finders)

    def predict(
        self,
        cohort: PreparedCohort,
        rows: np.ndarray | None = None,
        progress: Progress | None = None,
        level: float = LEVEL,
    ) -> pd.DataFrame:
        """Predict records with all that each has.

        Args:
            cohort: A prepared cohort.
            rows: Of the cohort; all by default.
            progress: Told of records.
            level: Share of patients whose outcome should be within the sets, intervals and bounds that are told.

        Returns:
            Columns ``patient``; ``row`` of the cohort; ``modalities`` that may be read and that the patient has, as
            ``mri+rna``; those of each task behind its name, NaN for patients who have none of these modalities;
            ``observed/…``, the share of the features that are read of a modality; ``novelty/…``, how unlike training
            patients each modality is (1: as one in a hundred of them); and ``abstain``, why not to rely on the
            prediction, empty where nothing speaks against it.

        Raises:
            DataError: The cohort was prepared otherwise, or shares too little with what a method knows.
        """
        cohort = self.finding(cohort)
        refuse_nothing_shared(self.modalities, cohort)
        rows = np.arange(len(cohort)) if rows is None else rows
        said = self._of_networks(cohort, rows, progress)
        novelty = {f"novelty/{unit}": far_N.numpy() for unit, far_N in said.pop(NOVELTY).items()}
        observed = {f"observed/{name}": share_N.numpy(force=True) for name, share_N in said.pop(OBSERVED).items()}
        images = ImageFeatures(cohort)
        said |= {method: self._of_linear(method, cohort, rows, images) for method in self.linear}
        groups, modalities = cohort.groups[rows].astype(str), readable(cohort, rows, self.modalities)
        columns: dict[str, np.ndarray] = {}
        for name, task in self.tasks.items():
            each = [weight * said[method][name].cpu().double() for method, weight in self.weights[name].items()]
            outputs = torch.stack(each).sum(dim=0)
            columns |= predictions(task, self.uncertain[name], outputs, groups, modalities, level)
        table = pd.DataFrame(columns)
        nothing = modalities == NOTHING
        for column, values in table.items():
            table.loc[nothing, column] = "" if values.dtype == object else np.nan
        first = {"patient": cohort.patients[rows].astype(str), "row": rows, "modalities": modalities}
        last = {**observed, **novelty, "abstain": _reasons(novelty, nothing)}
        return pd.concat([pd.DataFrame(first), table, pd.DataFrame(last)], axis=1)

    def sentences(self, cohort: PreparedCohort) -> list[str]:
        """What a cohort and the methods do not share, and what follows, for whoever predicts.

        Raises:
            DataError: The cohort was prepared otherwise, or shares too little with what a method knows.
        """
        cohort = self.finding(cohort)
        refuse_nothing_shared(self.modalities, cohort)
        rows = np.arange(len(cohort))
        linear = [model for models in self.linear.values() for model in models.values()]
        told = [sentence for network in self.networks.values() for sentence in network.align(cohort).matched()]
        told += [sentence for model in linear for sentence in model.sentences(cohort, rows)]
        told += not_used(cohort, self.modalities)
        if nothing := int((readable(cohort, rows, self.modalities) == NOTHING).sum()):
            told.append(f"{counted(nothing, 'record')} cannot be predicted: nothing that may be read is there.")
        return list(dict.fromkeys(told))

    def _of_networks(
        self, cohort: PreparedCohort, rows: np.ndarray, progress: Progress | None
    ) -> dict[str, dict[str, Tensor]]:
        """Method to task to outputs of a network, `NOVELTY` and `OBSERVED`; networks that read alike share one pass."""
        found: dict[str, dict[str, Tensor]] = {}
        for network in self.networks.values():
            alike = {m: p for m, p in self.networks.items() if p.preprocessing == network.preprocessing}
            if alike.keys() <= found.keys():
                continue
            also = {NOVELTY: self.novelty, OBSERVED: _observed} if self.novelty.reads(network.preprocessing) else {}
            found |= read_several({**also, **alike}, network.align(cohort), rows, progress, network.device)
            progress = None
        if NOVELTY not in found:
            aligned = align_part(self.novelty.preprocessing, cohort).only(self.modalities)
            also = {NOVELTY: self.novelty, OBSERVED: _observed}
            found |= read_several(also, aligned, rows, progress, torch.device("cpu"))
        return found

    def _of_linear(
        self, method: str, cohort: PreparedCohort, rows: np.ndarray, images: ImageFeatures
    ) -> dict[str, Tensor]:
        """Task to the outputs of a linear baseline, of those tasks that use it; each image is read once for all."""
        models = self.linear[method]
        return {
            name: task.outputs_of({e: models[e].predict(cohort, rows, images) for e in task.endpoints})
            for name, task in self.tasks.items()
            if method in self.weights[name]
        }


def _observed(batch: Batch) -> dict[str, Tensor]:
    """Omics modality to the share [B] of the features that are read which were observed."""
    return {name: observed_BF.float().mean(dim=1) for name, observed_BF in batch.observed.items()}


def _reasons(novelty: Mapping[str, np.ndarray], nothing: np.ndarray) -> np.ndarray:
    """[N] why not to rely on what is predicted."""
    told = [["nothing that may be read is there"] if none else [] for none in nothing]
    for unit, far_N in novelty.items():
        for n in np.flatnonzero(far_N > FAR):
            told[n].append(f"{unit.partition('/')[2]} is unlike that of training patients ({far_N[n]:.1f})")
    return np.array(["; ".join(reasons) for reasons in told], dtype=object)


def readable(cohort: PreparedCohort, rows: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """[N] modalities, of some that may be read, that each record has: as ``mri+rna``."""
    here = [name for name in modalities if name in cohort.modalities]
    return patterns(cohort.present_NM[rows][:, [cohort.modalities.index(name) for name in here]], here)


def _read_document(folder: Path) -> Document:
    fix = "name the folder of a fine-tuning run that ended with `final: true`"
    return Document.read(folder / DOCUMENT, folder / TENSORS, of="a kept predictor", fix=fix)
