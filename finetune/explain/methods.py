"""A method of a stack as a function of omics values: its share of every score, and where that share comes from.

All methods speak of the same columns, the omics features of the cohort that any of them reads, each scaled by the
method's own preprocessing. Scaled 0 is the baseline: the median of the patients who taught the method, or a gene
without mutation. What was observed stays observed at the baseline, and what was not has no share in anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.kept_predictor import KeptPredictor
from finetune.tasks.base import Task
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned


class Score(NamedTuple):
    """A number that is explained.

    Attributes:
        task: Its name.
        name: As of `Task.scores`.
    """

    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.task}: {self.name}"


@dataclass(frozen=True, eq=False)
class Columns:
    """The omics features of a cohort that something reads, P of them; modality by modality.

    Attributes:
        cohort: Whose features they are.
        positions: Modality to the positions of its columns among the cohort's features.
    """

    cohort: PreparedCohort
    positions: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, aligned: Sequence[Aligned]) -> Columns:
        """Those that any of several alignments of one cohort reads."""
        cohort = aligned[0].cohort
        read = {name: np.zeros(len(features), dtype=bool) for name, features in cohort.features.items()}
        for one in aligned:
            for name in one.preprocessing.omics().keys() & one.positions.keys():
                read[name][one.positions[name][one.positions[name] >= 0]] = True
        return cls(cohort, {name: np.flatnonzero(of_name) for name, of_name in read.items() if of_name.any()})

    def __len__(self) -> int:
        """P."""
        return sum(map(len, self.positions.values()))

    @property
    def names(self) -> list[str]:
        """[P] of features."""
        return [self.cohort.features[name][at] for name, places in self.positions.items() for at in places]

    @property
    def modalities(self) -> list[str]:
        """[P] of the modality of each."""
        return [name for name, places in self.positions.items() for _ in places]

    def slices(self) -> dict[str, slice]:
        """Modality to where its columns are."""
        ends = np.cumsum([0, *map(len, self.positions.values())]).tolist()
        return {name: slice(*ends[m : m + 2]) for m, name in enumerate(self.positions)}

    def places(self, aligned: Aligned, name: str) -> np.ndarray:
        """[F] column of each feature that an alignment reads of a modality; -1 of those that the cohort lacks."""
        column = np.full(len(self.cohort.features[name]) + 1, -1)
        column[self.positions[name]] = np.arange(len(self))[self.slices()[name]]
        return column[aligned.positions[name]]

    def values(self, rows: np.ndarray) -> np.ndarray:
        """[N, P] in the cohort's own units, NaN where not observed."""
        parts = [self.cohort.values_NF(name, rows)[:, at] for name, at in self.positions.items()]
        return np.concatenate([np.zeros((len(rows), 0), dtype=np.float32), *parts], axis=1)


class Records(ABC):
    """A method on some records, whose images and omics are read once.

    Attributes:
        moved_BP: Bool, values that are not at the baseline: only these have a share.
    """

    moved_BP: Tensor

    @abstractmethod
    def scores(self, keep_BP: Tensor | None = None) -> Tensor:
        """[B, S] float64, the method's share of scores, with values brought to the baseline that are not kept."""

    @abstractmethod
    def of_subsets(self, subsets: Sequence[tuple[str, ...]]) -> Tensor:
        """[B, V, S] float64, its share of scores where only these modalities may be seen."""

    @abstractmethod
    def attributions(self, steps: int) -> Tensor:
        """[B, S, P] float64, what each value contributes to its share, from the baseline on."""


class ExplainedMethod(ABC):
    """A method of the stack."""

    aligned: list[Aligned]
    """As it reads the cohort."""

    @abstractmethod
    def read(self, rows: np.ndarray, columns: Columns) -> Records:
        """Read records of the cohort."""

    @abstractmethod
    def randomised(self, seed: int) -> ExplainedMethod:
        """The same with its weights in disorder: each tensor keeps its numbers, in random places."""


class Weighted:
    """The scores of a stack's tasks, of one method times its weights.

    Args:
        kept: The stack.
        method: One of its methods.
        device: Where outputs are.
    """

    def __init__(self, kept: KeptPredictor, method: str, device: torch.device) -> None:
        self.scores = scores_of(kept)
        self.weights = {task: of[method] for task, of in kept.weights.items() if method in of}
        self.tasks: dict[str, Task] = {name: kept.tasks[name] for name in self.weights}
        self._device = device

    def __call__(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """[B, S] of the outputs of tasks; 0 for tasks that the method has no share in."""
        found = {
            Score(task, name): weight * value
            for task, weight in self.weights.items()
            for name, value in self.tasks[task].scores(outputs[task].double().to(self._device)).items()
        }
        nothing = torch.zeros_like(next(iter(found.values())))
        return torch.stack([found.get(score, nothing) for score in self.scores], dim=1)


def scores_of(kept: KeptPredictor) -> list[Score]:
    """All scores of a stack, in the order of its tasks."""
    return [Score(task, name) for task, of in kept.tasks.items() for name in of.scores(_no_outputs(of))]


def _no_outputs(task: Task) -> Tensor:
    """Outputs for nobody in particular."""
    with torch.no_grad():
        return task.head(1)(torch.zeros(1, 1))
