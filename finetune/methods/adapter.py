"""An adapter folder: adapter.json (base, settings, declared endpoints, groups, tasks) and tensors, written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import finetune.tasks  # noqa: F401  (registers every task)
from finetune.methods.adapt import adapt
from finetune.methods.adapted import Adapted
from finetune.methods.covariates import covariates_width
from finetune.methods.heads import Head
from finetune.methods.modes import AdaptConfig
from finetune.tasks.base import Task, tasks
from foundation.config import Config
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing
from foundation.hub.model_folder import fingerprint
from foundation.hub.seen_patients import SeenPatients
from foundation.model.multimodal import MultimodalModel

FORMAT = 2
DOCUMENT = "adapter.json"
TENSORS = "adapter.safetensors"
TASKS = "tasks"
"""What the names of tensors begin with that tasks have learned, as those of heads begin with ``heads``."""

AGAIN = "copy the folder again, or use the version of chiasma that wrote it"

DECLARED = ("kind", "classes", "unit", "causes")
"""What an adapter tells of an endpoint: nothing that counts patients."""


class Document(Config):
    """adapter.json.

    Attributes:
        adapt: How the base was adapted.
        base: Fingerprint of the base.
        tensors: SHA-256 of the file of tensors.
        covariates: Omics modalities whose values the heads read too.
        modalities: That may be seen of a patient: an assay that defines a label is not among them.
        tasks: Config of each task.
        endpoints: Name to its kind, classes, unit and causes.
        groups: Names of the groups of the training patients.
    """

    format_version: Literal[2] = 2
    adapt: AdaptConfig
    base: str
    tensors: str
    covariates: tuple[str, ...] = ()
    modalities: tuple[str, ...]
    tasks: list[tasks.configs()]  # type: ignore[valid-type]
    endpoints: dict[str, dict[str, Any]]
    groups: list[str] = []


def write(
    folder: Path,
    adapted: Adapted,
    fitted: Mapping[str, Task],
    *,
    modalities: Sequence[str],
    declared: Mapping[str, Mapping[str, Any]],
    groups: Sequence[str],
    seen: SeenPatients,
) -> None:
    """Write an adapter folder; it appears only when it is whole.

    Args:
        folder: To write, or to replace.
        adapted: Of its base, only the fingerprint is written.
        fitted: Name to task, finished.
        modalities: That may be seen of a patient.
        declared: Endpoint to its entry in the cohort's manifest.
        groups: Names of the groups of the training patients.
        seen: The training patients.
    """
    learned = {
        f"{TASKS}.{name}.{key}": value for name, task in fitted.items() for key, value in task.state_dict().items()
    }
    with replacing(folder) as partial:
        tensors = {name: tensor.contiguous() for name, tensor in {**adapted.state(), **learned}.items()}
        save_file(tensors, partial / TENSORS)
        endpoints = {name: _told(declared[name]) for task in fitted.values() for name in task.endpoints}
        document = Document(
            adapt=adapted.config,
            base=adapted.base,
            tensors=sha256_of(partial / TENSORS),
            covariates=adapted.covariates,
            modalities=tuple(modalities),
            tasks=[task.config for task in fitted.values()],
            endpoints=endpoints,
            groups=sorted(set(groups) - {""}),
        )
        seen.write(partial)
        (partial / DOCUMENT).write_text(document.model_dump_json(indent=2), encoding="utf-8")


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if key == "classes" else value for key, value in entry.items() if key in DECLARED}


def read(folder: Path, model: MultimodalModel) -> tuple[Adapted, dict[str, Task], Document]:
    """Read an adapter onto its base.

    Args:
        folder: Of the adapter.
        model: The base, which stays as it is; the result is on its device.

    Returns:
        The adapted model with its heads, its tasks by name, and what adapter.json says.

    Raises:
        CheckpointError: A file is missing or damaged, or the base is another one.
    """
    document = _read_document(folder)
    if document.base != fingerprint(model):
        raise CheckpointError(
            "this adapter was trained on another base model", where=str(folder), fix="load the model it was made from"
        )
    device = next(model.parameters()).device
    stored = {name: tensor.to(device) for name, tensor in load_file(folder / TENSORS).items()}
    built = {task.name: task for task in (tasks.build(config, document.endpoints) for config in document.tasks)}
    for name, task in built.items():
        # Before the heads, whose size may follow from what a task has learned.
        _take_over(task.to(device), _below(stored, f"{TASKS}.{name}."), folder)
    features = {name: len(modality.features) for spec in model.specs for name, modality in spec.omics.items()}
    width, more = model.config.width, covariates_width(features, document.covariates)
    heads = nn.ModuleDict({name: Head(task, width, more) for name, task in built.items()})
    adapted = adapt(model, document.adapt, heads, covariates=document.covariates)
    try:
        adapted.restore({name: tensor for name, tensor in stored.items() if not name.startswith(f"{TASKS}.")})
    except CheckpointError as error:
        raise CheckpointError(error.what, where=str(folder), fix=error.fix) from None
    return adapted.eval(), built, document


def _take_over(task: Task, learned: Mapping[str, Tensor], folder: Path) -> None:
    """Give a task what it has learned."""
    try:
        task.load_state_dict(learned)
    except RuntimeError:
        raise CheckpointError(
            f"what was learned for '{task.name}' does not fit its task in {DOCUMENT}", where=str(folder), fix=AGAIN
        ) from None


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _read_document(folder: Path) -> Document:
    """What adapter.json says, once the file of tensors is found to be the one it speaks of."""
    missing = [name for name in (DOCUMENT, TENSORS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"is no adapter folder: it has no {missing[0]}", where=str(folder), fix="name the `adapter` folder of a run"
        )
    try:
        document = Document.model_validate_json((folder / DOCUMENT).read_bytes())
    except ValidationError:
        raise CheckpointError(f"{DOCUMENT} is damaged, or of another version", where=str(folder), fix=AGAIN) from None
    if sha256_of(folder / TENSORS) != document.tensors:
        raise CheckpointError(f"{TENSORS} is damaged", where=str(folder), fix="copy the folder again")
    return document
