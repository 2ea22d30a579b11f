"""Making a model ready to be adapted: a copy around its frozen tensors, LoRA on its towers, what is trained.

An adapted model is a copy of the base around the same frozen tensors: it costs the memory of what is trained, the base
stays as it was, and any number of adapters can stand on one base at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from finetune.methods.adapted import Adapted
from finetune.methods.lora import attach
from finetune.methods.modes import AdaptConfig, Full, Lora, Scratch, TowerLora
from finetune.methods.reading import Reading
from foundation.errors import ConfigError, nearest
from foundation.model.model_folder import fingerprint
from foundation.model.multimodal import MultimodalModel


def adapt(
    model: MultimodalModel,
    config: AdaptConfig,
    heads: nn.ModuleDict,
    *,
    seed: int = 0,
    reading: Reading | None = None,
) -> Adapted:
    """Make a model ready to be trained for tasks.

    Args:
        model: The base; it stays as it is.
        config: What is to be trained of it.
        heads: Task to its head; they become part of the result, and are always trained.
        seed: Of the run; decides the numbers that adapters, or a network from scratch, start with.
        reading: What heads read; by default the fused embedding alone.

    Raises:
        ConfigError: An adapter would be on nothing, or a tower is named that there is not.
    """
    base = fingerprint(model)
    device = next(model.parameters()).device
    with _random_numbers(seed):
        if isinstance(config, Scratch):
            model = MultimodalModel(model.config.self_contained()).to(device)  # type: ignore[call-overload]
        bare = _bare_parameters(model, config)
        model = _copy_around(model, bare)
        if isinstance(config, Lora):
            for name, settings in _settings(config, model).items():
                attach(name, model.towers[name], settings)
    for name, parameter in model.named_parameters():
        if name in bare:
            parameter.requires_grad_(True)
    return Adapted(model, heads.to(device), config, base, reading)


@contextmanager
def _random_numbers(seed: int) -> Iterator[None]:
    """Random numbers of this seed, leaving those of everybody else as they were; modules start on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _copy_around(model: MultimodalModel, bare: set[str]) -> MultimodalModel:
    """A copy that shares the tensors of all parameters but those in `bare`, and has them frozen."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().clone() if name in bare else parameter.detach(), False)
        for name, parameter in model.named_parameters()
    }
    return copy.deepcopy(model, memo)


def _bare_parameters(model: MultimodalModel, config: AdaptConfig) -> set[str]:
    """Names of the base's own parameters that are trained as they are."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if isinstance(config, Full | Scratch):
        return trainable
    chosen = {name for name in trainable if name.split(".")[0] in config.train}
    if "norms" in config.train:
        towers = _settings(config, model) if isinstance(config, Lora) else dict(model.towers.named_children())
        chosen |= {name for tower in towers for name in _norms(model.towers[tower], f"towers.{tower}")}
    return chosen & trainable


def _norms(tower: nn.Module, prefix: str) -> Iterator[str]:
    """Names of the parameters of a tower's norms."""
    for name, module in tower.named_modules(prefix=prefix):
        # By its name, because timm has norms of its own, which have no class in common with torch's.
        if "norm" in type(module).__name__.lower():
            yield from (f"{name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False))


def _settings(config: Lora, model: MultimodalModel) -> dict[str, Lora]:
    """Settings of each tower that gets adapters."""
    unknown = [name for name in config.towers if name not in model.towers]
    if unknown:
        raise ConfigError(
            f"no tower is called '{unknown[0]}'", where="adapt.towers", fix=nearest(unknown[0], model.towers.keys())
        )
    own = {name: config.towers.get(name, TowerLora()) for name in model.towers}
    settings = {
        name: config.model_copy(update=changes.model_dump(exclude_none=True))
        for name, changes in own.items()
        if changes is not None
    }
    if not settings:
        raise ConfigError("no tower is left to adapt", where="adapt.towers", fix="write `mode: frozen` for heads alone")
    return settings
