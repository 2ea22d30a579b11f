"""An adapter folder: adapter.json (base, settings, declared endpoints, groups, tasks) and tensors, written and read.

Where heads read covariates that the base does not know, preprocessing.json beside them holds the scaling of these, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from finetune.methods.adapt import adapt
from finetune.methods.adapted import Adapted
from finetune.methods.fitted_tasks import TASKS, learned, rebuild, told
from finetune.methods.heads import Head
from finetune.methods.modes import AdaptConfig
from finetune.methods.reading import Reading, ReadingConfig
from finetune.tasks.base import Task, tasks
from foundation.config import Config
from foundation.data.preprocessing import FILE as PREPROCESSING
from foundation.data.preprocessing import Preprocessing
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing
from foundation.model.model_folder import fingerprint
from foundation.model.multimodal import MultimodalModel
from foundation.model.seen_patients import SeenPatients

FORMAT = 2
DOCUMENT = "adapter.json"
TENSORS = "adapter.safetensors"
AGAIN = "copy the folder again, or use the version of chiasma that wrote it"


class Document(Config):
    """adapter.json.

    Attributes:
        adapt: How the base was adapted.
        base: Fingerprint of the base.
        tensors: SHA-256 of the file of tensors.
        preprocessing: SHA-256 of preprocessing.json; empty where there is none, as in earlier versions.
        reading: What heads read.
        covariates: Of earlier versions: omics modalities whose values heads read beside the fused embedding.
        modalities: That may be seen of a patient: an assay that defines a label is not among them.
        tasks: Config of each task.
        endpoints: Name to its kind, classes, unit and causes.
        groups: Names of the groups of the training patients.
    """

    format_version: Literal[2] = 2
    adapt: AdaptConfig
    base: str
    tensors: str
    preprocessing: str = ""
    reading: ReadingConfig = ReadingConfig()
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
    with replacing(folder) as partial:
        tensors = {name: tensor.contiguous() for name, tensor in {**adapted.state(), **learned(fitted)}.items()}
        save_file(tensors, partial / TENSORS)
        heads_only = adapted.reading.heads_only
        if heads_only is not None:
            heads_only.write(partial)
        document = Document(
            adapt=adapted.config,
            base=adapted.base,
            tensors=sha256_of(partial / TENSORS),
            preprocessing="" if heads_only is None else sha256_of(partial / PREPROCESSING),
            reading=adapted.reading.config,
            modalities=tuple(modalities),
            tasks=[task.config for task in fitted.values()],
            endpoints=told(fitted, declared),
            groups=sorted(set(groups) - {""}),
        )
        seen.write(partial)
        (partial / DOCUMENT).write_text(document.model_dump_json(indent=2), encoding="utf-8")


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
            "this adapter belongs to another model, or the model was changed or damaged since",
            where=str(folder),
            fix="load the model that it was made from, or train again",
        )
    device = next(model.parameters()).device
    stored = {name: tensor.to(device) for name, tensor in load_file(folder / TENSORS).items()}
    # Before the heads, whose size may follow from what a task has learned.
    built = rebuild(document.tasks, document.endpoints, stored, folder, device)
    reading = _reading(document, folder, model).to(device)
    heads = nn.ModuleDict({name: Head(task, reading.blocks()) for name, task in built.items()})
    adapted = adapt(model, document.adapt, heads, reading=reading)
    try:
        adapted.restore({name: tensor for name, tensor in stored.items() if not name.startswith(f"{TASKS}.")})
    except CheckpointError as error:
        raise CheckpointError(error.what, where=str(folder), fix=error.fix) from None
    return adapted.eval(), built, document


def _reading(document: Document, folder: Path, model: MultimodalModel) -> Reading:
    """What heads read, before its tensors are restored."""
    config = ReadingConfig(covariates=document.covariates) if document.covariates else document.reading
    reading = Reading(config, model, Preprocessing.read(folder) if document.preprocessing else None)
    unknown = [name for name in config.covariates if name not in reading.features]
    if unknown:
        what = f"its heads read '{unknown[0]}', whose scaling neither it nor its base has"
        raise CheckpointError(what, where=str(folder), fix=AGAIN)
    return reading


def _read_document(folder: Path) -> Document:
    """What adapter.json says, once the files beside it are found to be those it speaks of."""
    missing = [name for name in (DOCUMENT, TENSORS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"is no adapter folder: it has no {missing[0]}", where=str(folder), fix="name the `adapter` folder of a run"
        )
    try:
        document = Document.model_validate_json((folder / DOCUMENT).read_bytes())
    except ValidationError:
        raise CheckpointError(f"{DOCUMENT} is damaged, or of another version", where=str(folder), fix=AGAIN) from None
    for name, known in ((TENSORS, document.tensors), (PREPROCESSING, document.preprocessing)):
        there = (folder / name).is_file()
        if known and not (there and sha256_of(folder / name) == known):
            what = f"{name} is {'damaged' if there else 'missing'}"
            raise CheckpointError(what, where=str(folder), fix="copy the folder again")
    return document
