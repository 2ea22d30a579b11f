"""The optimiser: AdamW with decay groups, and a learning rate that is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from foundation.config import Config


class OptimiserConfig(Config):
    """AdamW and its schedule."""

    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0, description="Bound on the norm of the gradient.")
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine", description="After warm-up: a cosine to zero, or stable and a linear decay (wsd)."
    )
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="Fraction of the steps.")
    decay: float = Field(default=0.2, gt=0, le=1, description="Fraction of the steps that wsd decays over.")


def build_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; matrices decay, vectors and scalars do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, foreach=True)


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
    """Give every group the same learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_norm(parameters: Iterable[nn.Parameter], bound: float) -> Any:
    """Clip the gradient to `bound` and return its norm before that."""
    return torch.nn.utils.clip_grad_norm_(list(parameters), bound, foreach=True)
