"""An adapter folder: what was trained and on which base, written whole and read with everything checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from finetune.methods.adapt import AdaptConfig, Adapted, adapt
from foundation.config import Config
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing
from foundation.hub.model_folder import fingerprint
from foundation.model.multimodal import MultimodalModel

DOCUMENT = "adapter.json"
TENSORS = "adapter.safetensors"


class Document(Config):
    """adapter.json.

    Attributes:
        adapt: How the base was adapted.
        base: Fingerprint of the base.
        tensors: SHA-256 of the file of tensors.
        covariates: Omics modalities whose values the heads read too.
    """

    format_version: Literal[1] = 1
    adapt: AdaptConfig
    base: str
    tensors: str
    covariates: tuple[str, ...] = ()


def write(folder: Path, adapted: Adapted) -> None:
    """Write an adapter folder; it appears only when it is whole.

    Args:
        folder: To write, or to replace.
        adapted: Of its base, only the fingerprint is written.
    """
    with replacing(folder) as partial:
        save_file({name: tensor.contiguous() for name, tensor in adapted.state().items()}, partial / TENSORS)
        digest = sha256_of(partial / TENSORS)
        document = Document(adapt=adapted.config, base=adapted.base, tensors=digest, covariates=adapted.covariates)
        (partial / DOCUMENT).write_text(document.model_dump_json(indent=2), encoding="utf-8")


def read(folder: Path, model: MultimodalModel, heads: nn.ModuleDict) -> Adapted:
    """Read an adapter onto its base.

    Args:
        folder: Of the adapter.
        model: The base, which stays as it is.
        heads: Made as those that were trained; they take over what those have learned.

    Raises:
        CheckpointError: A file is missing or damaged, the base is another one, or the heads do not fit.
    """
    document = _read_document(folder)
    if document.base != fingerprint(model):
        raise CheckpointError(
            "this adapter was trained on another base model", where=str(folder), fix="load the model it was made from"
        )
    adapted = adapt(model, document.adapt, heads, covariates=document.covariates)
    try:
        adapted.restore(load_file(folder / TENSORS))
    except CheckpointError as error:
        raise CheckpointError(error.what, where=str(folder), fix=error.fix) from None
    return adapted.eval()


def _read_document(folder: Path) -> Document:
    """What adapter.json says, once the file of tensors is found to be the one it speaks of."""
    missing = [name for name in (DOCUMENT, TENSORS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"is no adapter folder: it has no {missing[0]}", where=str(folder), fix="name the `adapter` folder of a run"
        )
    again = "copy the folder again, or use the version of chiasma that wrote it"
    try:
        document = Document.model_validate_json((folder / DOCUMENT).read_bytes())
    except ValidationError:
        raise CheckpointError(f"{DOCUMENT} is damaged, or of another version", where=str(folder), fix=again) from None
    if sha256_of(folder / TENSORS) != document.tensors:
        raise CheckpointError(f"{TENSORS} is damaged", where=str(folder), fix="copy the folder again")
    return document
