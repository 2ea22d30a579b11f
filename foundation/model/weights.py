"""Pretrained weights from a local file into a module, with a report of what became of each tensor."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from foundation.errors import CheckpointError, ConfigError

IN_A_FOLDER = (
    "models/model.safetensors",
    "models/model.pt",
    "model.safetensors",
    "model.pt",
    "pytorch_model.bin",
)
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "teacher", "student", "module")
INTERPOLATION = {1: "linear", 2: "bicubic", 3: "trilinear"}


@dataclass
class Loaded:
    """What became of a file of weights.

    Attributes:
        path: The file.
        loaded: Tensors of the module that were taken as they are.
        reshaped: Tensors that were made to fit, to how.
        unfit: Tensors that are in both and cannot be made to fit, to their two shapes.
        missing: Tensors of the module that the file does not have; they keep their random start.
        unused: Tensors of the file that the module does not have.
    """

    path: str
    loaded: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.path}: {len(self.loaded)} tensors loaded, {len(self.reshaped)} made to fit"]
        lines += [f"  made to fit: {name}: {how}" for name, how in self.reshaped.items()]
        lines += [f"  does not fit: {name}: {shapes}" for name, shapes in self.unfit.items()]
        lines += [f"  not in the file, left random: {_few(self.missing)}"] * bool(self.missing)
        lines += [f"  in the file, not used: {_few(self.unused)}"] * bool(self.unused)
        return "\n".join(lines)


def _few(names: Sequence[str], at_most: int = 6) -> str:
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, by name; nothing in the file is run.

    Args:
        path: A safetensors file, a file of `torch.save`, or a folder of one of them, such as a MONAI bundle.

    Raises:
        ConfigError: There is no such file.
        CheckpointError: It is damaged, holds no tensors, or is a pickle that would run code.
    """
    file = _file(path)
    tensors = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    if not tensors:
        raise CheckpointError("holds no tensors with names", where=str(file), fix="save the state_dict of the model")
    return tensors


def _file(path: Path) -> Path:
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


def load_weights(
    module: nn.Module, path: Path, positions: Mapping[str, tuple[int, tuple[int, ...]]] | None = None
) -> Loaded:
    """Put the tensors of a file into a module, made to fit where that has a meaning.

    A convolution is fitted to another number of input channels (their mean, in every channel, at the same sum) and
    to another size of kernel (interpolated, at about the same sum); position embeddings are interpolated to another
    grid. A name may have any prefix in the file, such as ``vit.`` or ``module.``.

    Args:
        module: Changed in place.
        path: As for `read_weights`.
        positions: Name of each position embedding, [1, leading + P, D], to its number of leading tokens and its grid.

    Returns:
        What became of each tensor.

    Raises:
        ConfigError: There is no such file.
        CheckpointError: The file cannot be read, or nothing in it belongs to the module.
    """
    found, own = read_weights(path), module.state_dict()
    prefix = _prefix(found, own)
    report = Loaded(str(path))
    report.unused = sorted(name for name in found if not name.startswith(prefix) or name[len(prefix) :] not in own)
    convolutions = {f"{name}.weight" for name, part in module.named_modules() if _mixes_channels(part)}
    fitted: dict[str, Tensor] = {}
    for name, target in own.items():
        if prefix + name not in found:
            report.missing.append(name)
            continue
        tensor, how = _fit(found[prefix + name], target.shape, (positions or {}).get(name), name in convolutions)
        if tensor is None:
            report.unfit[name] = how
            continue
        fitted[name] = tensor
        if how:
            report.reshaped[name] = how
        else:
            report.loaded.append(name)
    if not fitted:
        what = f"nothing in it belongs to the tower: it has {_few(sorted(found))}; the tower has {_few(sorted(own))}"
        fix = "name weights of the same architecture and width, or write `weights: none`"
        raise CheckpointError(what, where=str(path), fix=fix)
    module.load_state_dict(fitted, strict=False)
    return report


def _mixes_channels(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and part.groups == 1


def _prefix(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What stands before the module's names in the file, by the number of names that it explains."""
    anchors = [name for name in own if name.count(".") <= 2][:8] + list(own)[-4:]
    prefixes = {key[: -len(name)] for name in anchors for key in found if key.endswith(name)} | {""}
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + name in found for name in own))


def _fit(
    tensor: Tensor, shape: torch.Size, position: tuple[int, tuple[int, ...]] | None, convolution: bool
) -> tuple[Tensor | None, str]:
    """A tensor of another shape, and how it came about; empty where nothing had to be done."""
    if tensor.shape == shape:
        return tensor, ""
    fitted, kind = None, ""
    if position is not None and tensor.ndim == 3 and tensor.shape[-1] == shape[-1]:
        fitted, kind = _fit_positions(tensor, *position), "positions"
    elif convolution and tensor.ndim == len(shape) and len(tensor) == shape[0]:
        fitted, kind = _fit_convolution(tensor, shape), "convolution"
    if fitted is None:
        return None, f"{list(tensor.shape)} in the file, {list(shape)} in the tower"
    return fitted, f"{kind}, {list(tensor.shape)} to {list(shape)}"


def _fit_convolution(tensor: Tensor, shape: torch.Size) -> Tensor:
    """[D, C, ...] to another C and kernel, scaled so that one intensity everywhere gives about the same answer."""
    channels, kernel = shape[1], shape[2:]
    tensor = tensor.float()
    if tensor.shape[1] != channels:
        tensor = (tensor.sum(dim=1, keepdim=True) / channels).expand(-1, channels, *tensor.shape[2:])
    if tensor.shape[2:] != kernel:
        smaller = torch.Size(tensor.shape[2:]).numel() / kernel.numel()
        tensor = interpolate(tensor, size=kernel, mode=INTERPOLATION[len(kernel)], align_corners=False) * smaller
    return tensor.contiguous()


def _fit_positions(tensor: Tensor, leading: int, grid: tuple[int, ...]) -> Tensor | None:
    """[1, leading + P, D] of a grid with equal sides to another grid; None where its sides cannot be equal."""
    count = tensor.shape[1] - leading
    side = round(max(count, 0) ** (1 / len(grid)))
    if count < 1 or side ** len(grid) != count:
        return None
    first, rest = tensor[:, :leading].float(), tensor[:, leading:].float()
    rest = rest.transpose(1, 2).unflatten(2, [side] * len(grid))
    rest = interpolate(rest, size=grid, mode=INTERPOLATION[len(grid)], align_corners=False)
    return torch.cat([first, rest.flatten(2).transpose(1, 2)], dim=1)
