"""Pretrained weights put into a module: names matched, channels and positions made to fit, every tensor reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from foundation import licences
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.hub.address import is_address, local
from foundation.model.layouts import BLOCK, in_names_of, rearranged, strange
from foundation.model.weight_files import file_of, read_weights

LEAST = 0.5
"""Share of a tower's numbers that a file must have."""

INTERPOLATION = {1: "linear", 2: "bicubic", 3: "trilinear"}


@dataclass
class Loaded:
    """What became of a file of weights.

    Attributes:
        path: The file, or where it is on a hub.
        loaded: Tensors of the module that were taken as they are.
        reshaped: Tensors that were made to fit, to how.
        unfit: Tensors that are in both and cannot be made to fit, to their two shapes.
        missing: Tensors of the module that the file does not have; they keep their random start.
        unused: Tensors of the file that the module does not have, in the module's names where these are known.
        layouts: Whose names the file was in, if not the module's own.
        licence: Of the weights, as the card beside them or timm names it; empty where nobody does.
        sha256: Of the file; empty where they are timm's.
    """

    path: str
    loaded: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    licence: str = ""
    sha256: str = ""

    def origin(self) -> dict[str, str]:
        """Where the weights come from, to be kept with a model: no place of this machine, but what tells them apart."""
        name = self.path if is_address(self.path) else Path(self.path).name
        return {"name": name, "sha256": self.sha256, "licence": self.licence}

    def summary(self) -> str:
        """A few lines for a person."""
        named = f", in the names of {' and '.join(self.layouts)}" if self.layouts else ""
        lines = [f"{self.path}: {len(self.loaded)} tensors loaded, {len(self.reshaped)} made to fit{named}"]
        lines += [f"  made to fit: {name}: {how}" for name, how in self.reshaped.items()]
        lines += [f"  does not fit: {name}: {shapes}" for name, shapes in self.unfit.items()]
        lines += [f"  not in the file, left random: {_few(self.missing)}"] * bool(self.missing)
        lines += [f"  in the file, not used: {_few(self.unused)}"] * bool(self.unused)
        return "\n".join(lines)


def _few(names: Sequence[str], at_most: int = 6) -> str:
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def load_weights(
    module: nn.Module, place: Path | str, positions: Mapping[str, tuple[int, tuple[int, ...]]] | None = None
) -> Loaded:
    """Put the tensors of a file into a module, made to fit where that has a meaning.

    A convolution is fitted to another number of input channels (their mean, in every channel, at the same sum) and
    to another size of kernel (interpolated, at about the same sum); position embeddings are interpolated to another
    grid. A name may have any prefix in the file, such as ``vit.`` or ``module.``; names and arrangements of other
    libraries are those of `foundation.model.layouts`.

    Args:
        module: Changed in place.
        place: As for `read_weights` of `foundation.model.weight_files`, or ``hf://organisation/name@revision``.
        positions: Name of each position embedding, [1, leading + P, D], to its number of leading tokens and its grid.

    Returns:
        What became of each tensor.

    Raises:
        ConfigError: There is no such file or repository.
        CheckpointError: The file cannot be read, less than half of the module is in it, or its blocks are of another
            kind than the module's.
        StoreError: The hub cannot be reached.
    """
    file = file_of(local(place))
    own, report = module.state_dict(), Loaded(str(place), licence=licences.beside(file), sha256=sha256_of(file))
    found, report.layouts = in_names_of(own, read_weights(file))
    prefix = _prefix(found, own)
    inside = {name[len(prefix) :]: tensor for name, tensor in found.items() if name.startswith(prefix)}
    inside = rearranged(own, inside, positions or {})
    other = strange(own, inside)
    report.unused = sorted(
        [*(name for name in found if not name.startswith(prefix)), *(prefix + name for name in inside.keys() - own)]
    )
    convolutions = {f"{name}.weight" for name, part in module.named_modules() if _mixes_channels(part)}
    fitted: dict[str, Tensor] = {}
    for name, target in own.items():
        if name not in inside:
            report.missing.append(name)
            continue
        tensor, how = _fit(inside[name], target.shape, (positions or {}).get(name), name in convolutions)
        if tensor is None:
            report.unfit[name] = how
            continue
        fitted[name] = tensor
        if how:
            report.reshaped[name] = how
        else:
            report.loaded.append(name)
    _refuse_little(fitted, own, found, report)
    _refuse_other_blocks(other, report)
    module.load_state_dict(fitted, strict=False)
    return report


def _refuse_little(
    fitted: Mapping[str, Tensor], own: Mapping[str, Tensor], found: Mapping[str, Tensor], report: Loaded
) -> None:
    """Refuse a file of which so little fits that it is of something else; names such as ``norm.weight`` are common."""
    fix = "name weights of the same architecture and width, or write `weights: none`"
    if not fitted:
        what = f"nothing in it belongs to the tower: it has {_few(sorted(found))}; the tower has {_few(sorted(own))}"
        if report.unfit:
            name, shapes = next(iter(report.unfit.items()))
            what = f"nothing in it fits the tower: {name} is {shapes}"
        raise CheckpointError(what, where=report.path, fix=fix)
    share = sum(own[name].numel() for name in fitted) / sum(tensor.numel() for tensor in own.values())
    if share < LEAST:
        lacks = [f"{name} ({shapes})" for name, shapes in report.unfit.items()] + report.missing
        what = f"only {share:.0%} of the tower is in it; without, for example, {_few(lacks, at_most=3)}"
        raise CheckpointError(what, where=report.path, fix=fix)


def _refuse_other_blocks(other: Sequence[str], report: Loaded) -> None:
    """Refuse a file whose blocks compute something else than the tower's, though most of their names are the same."""
    if other := [*other, *(f"{name} ({shapes})" for name, shapes in report.unfit.items() if BLOCK.fullmatch(name))]:
        bias = any(name.endswith("qkv.bias") for name in other)
        fix = "write `qkv_bias: true`" if bias else "name weights of the same architecture, or write `weights: none`"
        raise CheckpointError(
            f"its blocks are not the tower's, which has no place for {_few(other, at_most=3)}",
            where=report.path,
            fix=fix,
        )


def _mixes_channels(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and part.groups == 1


def _prefix(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What stands before the module's names in the file, by the number of names that it explains; a teacher's first."""
    anchors = [name for name in own if name.count(".") <= 2][:8] + list(own)[-4:]
    prefixes = {key[: -len(name)] for name in anchors for key in found if key.endswith(name)} | {""}
    return max(sorted(prefixes), key=lambda prefix: (sum(prefix + name in found for name in own), "teacher" in prefix))


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
