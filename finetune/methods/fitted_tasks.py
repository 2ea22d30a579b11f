"""Tasks that have learned, as tensors and declarations to be stored, and rebuilt from them without their cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import finetune.tasks  # noqa: F401  (registers every task)
from finetune.tasks.base import Task, TaskConfig, tasks
from foundation.errors import CheckpointError

TASKS = "tasks"
"""What the names of tensors begin with that tasks have learned."""

DECLARED = ("kind", "classes", "unit", "causes")
"""What is told of an endpoint: nothing that counts patients."""


def learned(fitted: Mapping[str, Task]) -> dict[str, Tensor]:
    """What tasks have learned, by names that begin with `TASKS`."""
    return {f"{TASKS}.{name}.{key}": value for name, task in fitted.items() for key, value in task.state_dict().items()}


def told(fitted: Mapping[str, Task], declared: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of the manifest's entries of endpoints, what tasks are rebuilt from."""
    return {name: _told(declared[name]) for task in fitted.values() for name in task.endpoints}


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if key == "classes" else value for key, value in entry.items() if key in DECLARED}


def rebuild(
    configs: Sequence[TaskConfig],
    endpoints: Mapping[str, Mapping[str, Any]],
    stored: Mapping[str, Tensor],
    folder: Path,
    device: torch.device,
) -> dict[str, Task]:
    """Tasks as they were when `learned` was asked.

    Args:
        configs: Of the tasks.
        endpoints: As `told` gave them.
        stored: Tensors, of which those of tasks are taken.
        folder: They come from, for messages.
        device: Where to.

    Raises:
        CheckpointError: The tensors are not of these tasks.
    """
    built = {task.name: task.to(device) for task in (tasks.build(config, endpoints) for config in configs)}
    for name, task in built.items():
        prefix = f"{TASKS}.{name}."
        own = {key.removeprefix(prefix): tensor for key, tensor in stored.items() if key.startswith(prefix)}
        try:
            task.load_state_dict(own)
        except RuntimeError:
            raise CheckpointError(
                f"what was learned for '{name}' does not fit its task",
                where=str(folder),
                fix="copy the folder again, or use the version of chiasma that wrote it",
            ) from None
    return built
