"""The uncertainty of a whole task: learned from held-out patients, told beside its predictions, stored and restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from finetune.tasks.base import Task
from finetune.uncertainty.base import LEVEL, Known, State, Uncertain, joined, parted


def learn(task: Task, outputs: Tensor, known: Known, groups: np.ndarray) -> list[Uncertain]:
    """Learn of a finished task from patients who taught none of the methods.

    Args:
        task: Finished.
        outputs: [N, ...] for the patients.
        known: The patients; what is predicted of them is filled in here.
        groups: [N] names.
    """
    known = Known(task.predict(outputs, groups), known.truth, known.patterns, known.inner)
    found = task.uncertain()
    for one in found:
        one.learn(known)
    return found


def predictions(
    task: Task,
    uncertain: Sequence[Uncertain],
    outputs: Tensor,
    groups: np.ndarray,
    patterns: np.ndarray,
    level: float = LEVEL,
) -> dict[str, np.ndarray]:
    """Columns [N] of a task behind its name: what it predicts, and how far that can be off.

    Args:
        task: Finished.
        uncertain: What was learned; may be empty.
        outputs: [N, ...] for the patients.
        groups: [N] names.
        patterns: [N] modalities that each has.
        level: Share of patients whose outcome should be within what is told.
    """
    columns = dict(task.predict(outputs, groups))
    for one in uncertain:
        columns |= one.tell(columns, patterns, level)
    return {f"{task.name}/{column}": values for column, values in columns.items()}


def states(uncertain: Sequence[Uncertain]) -> State:
    """What was learned of a task."""
    return joined({str(number): one.state() for number, one in enumerate(uncertain)})


def restored(task: Task, state: Mapping[str, np.ndarray]) -> list[Uncertain]:
    """The inverse of `states`."""
    found = task.uncertain()
    for number, one in enumerate(found):
        one.restore(parted(state, str(number)))
    return found
