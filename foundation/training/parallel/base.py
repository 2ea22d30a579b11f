"""What every strategy does: how the processes of a run share parameters, gradients and the optimiser's step."""

from __future__ import annotations

import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation.collectives import sum_over_processes, world_size
from foundation.model.towers.base import Tower

Precision = Literal["float32", "bfloat16"]
Result = TypeVar("Result")


def usable_device() -> torch.device:
    """The device of this process: its GPU where there are any, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


class Parallel(ABC):
    """How the processes of a run share its work; the update, the step and checkpoints call it, and nothing else does.

    Each process has a part of every batch. A loss is a sum over processes, so gradients are summed and not averaged,
    and the result is that of one process with the whole batch.

    Args:
        precision: Of the forward pass; weights, gradients and the optimiser stay in float32.
        device: Of this process.

    Attributes:
        cannot: Keys of a config that this strategy cannot do what they ask for.
        device: As given.
        rank, world_size: This process among all.
    """

    cannot: tuple[str, ...] = ()

    def __init__(self, precision: Precision = "float32", device: torch.device | None = None) -> None:
        self.device = device or usable_device()
        self.precision = precision
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world_size = world_size()

    def device_name(self) -> str:
        """What this process computes on, such as ``NVIDIA H100 80GB HBM3`` or ``x86_64``."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()

    def deal(self, module: nn.Module) -> None:  # noqa: B027  (most strategies need neither of both)
        """Deal out the parameters, before there is an optimiser; by default every process keeps all."""

    def take_over(self, module: nn.Module, optimiser: torch.optim.Optimizer, clip: float) -> None:  # noqa: B027
        """Know what is trained and by what, before the first step; by default there is nothing to prepare.

        Args:
            module: As dealt out.
            optimiser: Of its trained parameters.
            clip: Bound on the norm of the gradient.
        """

    def forward(self, compute: Callable[[], Result]) -> Result:
        """What `compute` gives; every forward pass of the module in training is made inside."""
        return compute()

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes and losses; the backward pass runs outside."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this process's share of a loss, which `forward` gave."""
        loss.backward()

    @abstractmethod
    def step(self, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Sum gradients over processes, clip them, and step, unless something is not finite anywhere.

        Args:
            optimiser: Of the trained parameters, with its learning rates set.
            loss: Scalar, this process's share.
            clip: Bound on the norm of the gradient of all parameters.

        Returns:
            The norm before clipping, and scalar bool whether all was finite; the same on every process.
        """

    def own(self, parameter: nn.Parameter) -> Tensor:
        """What this process keeps of a parameter, in the same memory, without a graph."""
        return parameter.detach()

    def part_of(self, parameter: nn.Parameter, own: Tensor) -> Tensor:
        """A tensor as large as what `own` gives, as the part of a whole that it is."""
        return own

    def state(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps of both, by name of the parameter: ``module``, and ``optimiser`` by moment.

        Tensors are whole and the same on every process, or DTensors of which each process has a part; most are in the
        memory that training uses. Every process calls this.
        """
        return {"module": module.state_dict(), "optimiser": dict(moments(module, optimiser))}

    def load(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        fill: Callable[[dict[str, dict[str, Tensor]]], None],
    ) -> None:
        """Take over a state.

        Args:
            module: As `take_over` had it.
            optimiser: As `take_over` had it.
            fill: Writes what was kept into tensors such as `state` gives.
        """
        begin_moments(optimiser, [parameter for group in optimiser.param_groups for parameter in group["params"]])
        fill(self.state(module, optimiser))

    def whole(self, module: nn.Module) -> AbstractContextManager[Any]:
        """While this lasts every process has all weights of a module, and its forward pass needs no other process."""
        return nullcontext()

    def weights(self, module: nn.Module) -> dict[str, Tensor] | None:
        """The weights of a module gathered on process 0, by name, on the processor; None where it has them anyway.

        Every process calls this; no more than one parameter is whole anywhere else.
        """
        return None


def blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of all towers in a module: most of its parameters, and each used in one place."""
    return [block for part in module.modules() if isinstance(part, Tower) for block in part.stack()]


def step_where_finite(optimiser: torch.optim.Optimizer, norm: Tensor, loss: Tensor) -> Tensor:
    """Step where the norm and the sum of losses over processes are finite; scalar bool.

    Nothing is fetched from the device: the fused optimiser reads there whether to leave everything as it is.
    """
    finite = torch.isfinite(norm) & torch.isfinite(sum_over_processes(loss))
    optimiser.found_inf = (~finite).to(torch.float32)  # type: ignore[attr-defined]
    optimiser.step()
    return finite


def moments(module: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimiser's state as ``parameter/moment``; its groups follow from the config, their rates from the step."""
    for name, parameter in module.named_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            yield f"{name}/{moment}", value


def begin_moments(optimiser: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Give AdamW, before its first step, the moments that it would begin with."""
    for parameter in parameters:
        optimiser.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def trained(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters of an optimiser, in its order; one without a gradient gets one of zeros.

    A parameter that this process's share did not reach then counts as zero, so that all processes do the same.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return parameters


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients that every process has whole, in one collective for each type of number."""
    if world_size() == 1:
        return
    for kind in {parameter.dtype for parameter in parameters}:
        gradients = [parameter.grad for parameter in parameters if parameter.dtype == kind]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]  # type: ignore[union-attr]
        for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(summed.view_as(gradient))  # type: ignore[union-attr]
