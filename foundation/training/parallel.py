"""How the processes of a run share its work: one small interface, which training loops call and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation.collectives import sum_over_processes, together, world_size

Precision = Literal["float32", "bfloat16"]


def usable_device() -> torch.device:
    """The device of this process: its GPU where there are any, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


class Parallel:
    """Every process holds the whole model, and gradients are summed over processes once per step.

    Of one process this is plain training. Another strategy is another class with these methods; nothing but the
    training loop and the update calls them.

    Args:
        precision: Of the forward pass; weights, gradients and the optimiser stay in float32.
        device: Of this process.

    Attributes:
        device: As given.
        rank, world_size: This process among all.
    """

    def __init__(self, precision: Precision = "float32", device: torch.device | None = None) -> None:
        self.device = device or usable_device()
        self.precision = precision
        self.rank = dist.get_rank() if together() else 0
        self.world_size = world_size()

    def wrap(self, model: nn.Module) -> Callable[..., Any]:
        """What is called in place of the model's forward."""
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes and losses; the backward pass runs outside."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this process's share of a loss."""
        loss.backward()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over processes: summed, not averaged, as a loss is a sum over processes.

        A parameter that this process's share did not reach counts as zero, so that all processes do the same.
        """
        if self.world_size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trained]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([p.numel() for p in trained]), strict=True):
            gradient.copy_(summed.view_as(gradient))  # type: ignore[union-attr]

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over processes, without a gradient."""
        return sum_over_processes(values)

    def clip(self, parameters: Iterable[nn.Parameter], bound: float) -> Tensor:
        """Clip the norm of the gradient of all parameters to `bound`; the norm before that, the same everywhere."""
        return torch.nn.utils.clip_grad_norm_(list(parameters), bound, foreach=True)
