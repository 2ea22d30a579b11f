"""What a method says of patients who did not teach it: training patients by inner folds, then the test patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.study import Study
from finetune.tasks.base import Task

TESTED = -1
"""In place of the number of an inner fold: a test patient."""


@dataclass(frozen=True)
class HeldOut:
    """Outputs of a method on one fold.

    Attributes:
        rows: [L] of the cohort, each once.
        inner: [L] number of the inner fold that held the patient out, or `TESTED`.
        outputs: Task to [L, ...] float64, as heads give them; NaN where nothing is said of a patient.
    """

    rows: np.ndarray
    inner: np.ndarray
    outputs: dict[str, Tensor]

    @classmethod
    def of(cls, rows: np.ndarray, inner: int, outputs: Mapping[str, Tensor]) -> HeldOut:
        """Of one inner fold, or of the test patients."""
        told = {name: output.detach().double().cpu() for name, output in outputs.items()}
        return cls(rows, np.full(len(rows), inner), told)

    @classmethod
    def join(cls, parts: Sequence[HeldOut]) -> HeldOut:
        """Several of one method."""
        rows, inner = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "inner"))
        return cls(rows, inner, {n: torch.cat([part.outputs[n] for part in parts]) for n in parts[0].outputs})

    def at(self, task: str, rows: np.ndarray) -> Tensor:
        """Outputs [N, ...] for a task, of some of its rows in their order."""
        place = np.argsort(self.rows)
        return self.outputs[task][torch.from_numpy(place[np.searchsorted(self.rows[place], rows)])]

    def taught_none(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of training patients of whom something is said for a task, and their inner folds."""
        said = ~torch.isnan(self.outputs[task]).flatten(1).all(dim=1).numpy() & (self.inner != TESTED)
        return self.rows[said], self.inner[said]

    def write(self, path: Path) -> None:
        """To a file of tensors."""
        numbers = {"rows": torch.from_numpy(self.rows), "inner": torch.from_numpy(self.inner)}
        outputs = {f"outputs.{name}": output.contiguous() for name, output in self.outputs.items()}
        save_file({**numbers, **outputs}, path)

    @classmethod
    def read(cls, path: Path) -> HeldOut:
        """What `write` wrote."""
        stored = load_file(path)
        rows, inner = stored.pop("rows").numpy(), stored.pop("inner").numpy()
        return cls(rows, inner, {name.removeprefix("outputs."): output for name, output in stored.items()})


def finish(task: Task, study: Study, held_out: HeldOut) -> None:
    """Finish a fitted task with what is said of training patients by models that they did not teach.

    A baseline hazard of those who taught a model would be that of a model too sure of itself.
    """
    rows, _ = held_out.taught_none(task.name)
    task.finish(torch.nan_to_num(held_out.at(task.name, rows)), study.truth(rows), study.groups(rows))
