"""The optimiser: AdamW in groups, and the schedule of its learning rate: a function of the step and of the layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.distributed.tensor import DTensor

from foundation.config import Config
from foundation.errors import ConfigError, nearest
from foundation.model.towers.base import Tower


class OptimiserConfig(Config):
    """AdamW and its schedule."""

    learning_rate: float = Field(default=1e-3, gt=0)
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Of a tower that starts from pretrained weights each layer learns by this factor slower than the "
        "one after it, for example 0.75; everything that starts from random numbers learns at the full rate.",
    )
    tower_rates: dict[str, float] = Field(
        default={},
        description="Tower to a factor on its learning rate. A low one, such as {omics: 0.1}, keeps a tower near a "
        "good start, and the others learn to meet it.",
    )
    weight_decay: float = Field(
        default=0.05, ge=0, description="Of weights that multiply; biases, norms, embeddings and temperatures are kept."
    )
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0, description="Bound on the norm of the gradient.")
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine", description="After warm-up: a cosine to zero, or stable and a linear decay (wsd)."
    )
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="Fraction of the steps.")
    decay: float = Field(default=0.2, gt=0, le=1, description="Fraction of the steps that wsd decays over.")


class Paced(nn.Module):
    """A module that knows how fast it should learn.

    Attributes:
        pace: What the learning rate of its parameters is multiplied by.
    """

    pace: float = 1.0


def build_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in groups that share a weight decay and a factor on the learning rate.

    Raises:
        ConfigError: There is a layer decay, and no tower that starts from pretrained weights; or a rate for a tower
            that there is not.
    """
    decaying, factors = _weights_that_multiply(module), _factors(module, config)
    # One fused step takes either parameters that are dealt out over processes or such as are whole.
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            weight_decay = config.weight_decay if id(parameter) in decaying else 0.0
            key = factors.get(id(parameter), 1.0), weight_decay, isinstance(parameter, DTensor)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "factor": key[0], "weight_decay": key[1]} for key, group in groups.items()],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def _weights_that_multiply(module: nn.Module) -> set[int]:
    """Those of linear maps and convolutions; what is added to tokens, or stands for something, is not shrunk."""
    maps = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {id(part.weight) for part in module.modules() if isinstance(part, maps)}


def _factors(module: nn.Module, config: OptimiserConfig) -> dict[int, float]:
    """What the learning rate of a parameter is multiplied by, where that is not 1; by its `id`."""
    towers = {name.rpartition(".")[2]: part for name, part in module.named_modules() if isinstance(part, Tower)}
    factors = _factors_of_layers(towers.values(), config.layer_decay) if config.layer_decay < 1 else {}
    for name, rate in config.tower_rates.items():
        if name not in towers:
            raise ConfigError(
                f"no tower is called '{name}'", where="optimiser.tower_rates", fix=nearest(name, list(towers))
            )
        factors |= {id(p): rate * factors.get(id(p), 1.0) for p in towers[name].parameters()}
    for part in module.modules():
        if isinstance(part, Paced):
            factors |= {id(p): part.pace * factors.get(id(p), 1.0) for p in part.parameters()}
    return factors


def _factors_of_layers(towers: Iterable[Tower], layer_decay: float) -> dict[int, float]:
    """Factors that fall from the last layer of a pretrained tower to its first.

    Bao et al. 2022, BEiT: BERT pre-training of image transformers.
    """
    pretrained = [tower for tower in towers if tower.weights is not None]
    if not pretrained:
        raise ConfigError(
            "slows down pretrained layers, and no tower has pretrained weights",
            where="optimiser.layer_decay",
            fix="set `weights` of a tower, or remove layer_decay",
        )
    factors = {}
    for tower in pretrained:
        parameters = dict(tower.named_parameters())
        for height, names in enumerate(reversed(tower.layers())):
            factors |= {id(parameters[name]): layer_decay**height for name in names}
    return factors


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """Learning rate of a step.

    Args:
        config: Of the optimiser.
        step: Counted from 0.
        steps: Of the whole run.
    """
    warm_up = math.ceil(config.warm_up * steps)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    if config.schedule == "cosine":
        through = (step - warm_up) / max(steps - warm_up, 1)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * through))
    decaying = math.ceil(config.decay * steps)
    return config.learning_rate * min(1.0, (steps - step) / decaying)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group this learning rate times its own factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
