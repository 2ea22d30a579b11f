"""A model folder: weights, config, preprocessing and card, written whole and read with everything checked."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foundation.data.preprocessing import Preprocessing
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing, write_json
from foundation.hub.address import local
from foundation.hub.published import FILE as PUBLISHED
from foundation.hub.published import Published
from foundation.model.seen_patients import SeenPatients

if TYPE_CHECKING:
    from foundation.model.multimodal import MultimodalModel

FILES = ("config.json", "model.safetensors", "preprocessing.json", "README.md")
HASHES = "hashes.json"
"""Name of each other file, but for the card, which people edit, to its SHA-256."""

MODEL = "model"
"""Where it lies in the folder of a run, and in a published one."""


def of(place: str | Path) -> Path:
    """The model folder that a place names: itself, or that inside a published model that was pretrained alone.

    Of what was fine-tuned, the model inside knows nothing of the fine-tuning, so it has to be named itself.

    Raises:
        ConfigError, CheckpointError, StoreError: As of `foundation.hub.address.local`.
    """
    folder = local(place)
    published = Published.read(folder) if (folder / PUBLISHED).is_file() else None
    return folder / MODEL if published is not None and published.kind == "pretrained" else folder


def inside(folder: Path) -> Path:
    """The pretrained model of a run's folder or a published one; of a model folder, itself."""
    return folder / MODEL if (folder / MODEL).is_dir() else folder


def write(
    folder: Path,
    model: MultimodalModel,
    preprocessing: Preprocessing,
    card: str,
    seen: SeenPatients | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a model folder; it appears only when it is whole.

    Args:
        folder: To write, or to replace.
        model: The model.
        preprocessing: What a cohort must agree with to be read by it.
        card: README.md: what the model is, in words.
        seen: Whom it was trained on; without it, nobody can know later.
        weights: By name, where the model's own are dealt out over processes.
    """
    with replacing(folder) as partial:
        with _quietly():
            model.save_pretrained(partial, state_dict=weights)
        model.config.self_contained().save_pretrained(partial)
        preprocessing.write(partial)
        if seen is not None:
            seen.write(partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
        known = {path.name: sha256_of(path) for path in sorted(partial.iterdir()) if path.name != "README.md"}
        write_json(partial / HASHES, known)


def verify(folder: Path) -> None:
    """Compare the files of a model folder with the hashes that were written beside them.

    A folder without them, of an earlier version, is as it is.

    Raises:
        CheckpointError: A file is missing or changed.
    """
    path = folder / HASHES
    if not path.is_file():
        return
    try:
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        changed = [n for n, sha in known.items() if not (folder / n).is_file() or sha256_of(folder / n) != sha]
    except (OSError, ValueError, AttributeError):
        changed = [HASHES]
    if changed:
        what = "is missing" if not (folder / changed[0]).is_file() else "is damaged: it is not what was written"
        raise CheckpointError(what, where=str(folder / changed[0]), fix="copy the folder again from where it was made")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what would stand among the lines of a run.

    That is the bars of transformers for what takes a moment, and that deepspeed, which it imports, found no GPU.
    """
    from transformers.utils import logging as of_transformers

    deepspeed, shown = logging.getLogger("DeepSpeed"), of_transformers.is_progress_bar_enabled()
    of_transformers.disable_progress_bar()
    deepspeed.addFilter(_is_error)
    try:
        yield
    finally:
        deepspeed.removeFilter(_is_error)
        if shown:
            of_transformers.enable_progress_bar()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def fingerprint(model: MultimodalModel) -> str:
    """SHA-256 of a model's weights: names, types, shapes and values; the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read(folder: Path) -> tuple[MultimodalModel, Preprocessing]:
    """Read a model folder.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    from safetensors import SafetensorError

    from foundation.model.multimodal import MultimodalModel

    missing = [name for name in FILES[:3] if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"is no model folder: it has no {missing[0]}", where=str(folder), fix="name the `model` folder of a run"
        )
    _refuse_another_format(folder)
    verify(folder)
    preprocessing = Preprocessing.read(folder)
    try:
        with _quietly():
            loaded: Any = MultimodalModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            model, told = loaded
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot be read: {' '.join(str(error).split())[:300]}", where=str(folder), fix="copy the folder again"
        ) from None
    strange = sorted({*told["missing_keys"], *told["unexpected_keys"], *(key for key, *_ in told["mismatched_keys"])})
    if strange:
        raise CheckpointError(
            f"the weights are not those of config.json: {len(strange)} tensors differ, first '{strange[0]}'",
            where=str(folder),
            fix="copy the folder again",
        )
    for tensor in (*model.parameters(), *model.buffers()):
        # In the file, tensors lie at any address; where memory is not aligned, sums are rounded in another order.
        tensor.data = tensor.data.clone()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise CheckpointError(
            "has weights that are not finite", where=str(folder), fix="take the folder of another run"
        )
    return model.eval(), preprocessing


def _refuse_another_format(folder: Path) -> None:
    """Weights of another format would be taken for missing, and left random."""
    from foundation.model.multimodal import FORMAT

    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("format_version")
    except (OSError, ValueError, AttributeError):
        raise CheckpointError("cannot be read", where=str(path), fix="copy the folder again") from None
    if found != FORMAT:
        raise CheckpointError(
            f"is a model of format {found or 1}, and this version of chiasma reads format {FORMAT}",
            where=str(folder),
            fix="use the version of chiasma that wrote it, or pretrain again",
        )
