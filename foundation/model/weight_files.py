"""Files of weights read as tensors by name: safetensors, pickles of which nothing is run, folders of one of them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation.errors import CheckpointError, ConfigError

IN_A_FOLDER = (
    "models/model.safetensors",
    "models/model.pt",
    "model/model.safetensors",
    "model.safetensors",
    "model.pt",
    "pytorch_model.bin",
)
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "network_weights",
    "network",
    "target_encoder",
    "encoder",
    "teacher",
    "student",
    "module",
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, by name; nothing in the file is run.

    Args:
        path: A safetensors file, a file of `torch.save`, or a folder of one of them, such as a MONAI bundle.

    Raises:
        ConfigError: There is no such file.
        CheckpointError: It is damaged, holds no tensors, or is a pickle that would run code.
    """
    file = file_of(path)
    tensors = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    if not tensors:
        raise CheckpointError("holds no tensors with names", where=str(file), fix="save the state_dict of the model")
    return tensors


def file_of(path: Path) -> Path:
    """The file of weights that a path names: itself, or that of a folder; raises `ConfigError` where there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError("no such file of weights", where=str(path), fix="correct `weights`, or write `weights: none`")
    for name in IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
    raise ConfigError(
        f"holds none of {', '.join(IN_A_FOLDER)}", where=str(path), fix="name the file of weights itself in `weights`"
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot be read: {error}", where=str(file), fix="download or copy the file again"
        ) from None


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # Another pickle protocol is either read or refused; torch's doubts are not the reader's.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            document = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = f"is refused, because reading it would run code or because it is damaged: {_first_line(error)}"
        fix = "take the weights as safetensors, or save nothing but the state_dict of the model"
        raise CheckpointError(what, where=str(file), fix=fix) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        fix = "take the file again; of a bundle, name model.pt rather than TorchScript"
        raise CheckpointError(f"cannot be read: {_first_line(error)}", where=str(file), fix=fix) from None
    return _tensors(document)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _tensors(document: Any) -> dict[str, Tensor]:
    """The names and tensors of a checkpoint, from within the keys that trainers wrap them in."""
    if not isinstance(document, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(document.get(wrapper), Mapping):
            return _tensors(document[wrapper])
    return {str(name): value for name, value in document.items() if isinstance(value, Tensor)}
