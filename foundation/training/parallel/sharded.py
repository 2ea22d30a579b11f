"""The strategy `fsdp`: the blocks of every tower are dealt out over processes, each gathered while it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from foundation.collectives import sum_over_processes
from foundation.model.multimodal import MultimodalModel
from foundation.training.parallel.base import Parallel, blocks, step_where_finite, sum_gradients, trained


class Sharded(Parallel):
    """Fully sharded data parallel of blocks; what lies around them is small, and every process keeps it whole.

    A block's parameters, gradients and moments are dealt out by rows. Rajbhandari et al. 2020, ZeRO: memory
    optimizations toward training trillion parameter models (stage 3); Zhao et al. 2023, PyTorch FSDP.
    """

    def deal(self, module: nn.Module) -> None:
        """Shard the blocks of every tower, where they are."""
        mesh = init_device_mesh(self.device.type, (dist.get_world_size(),))
        for block in blocks(module):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
            assert isinstance(block, FSDPModule)
            # A loss is a sum over processes, and so is its gradient.
            block.set_gradient_divide_factor(1.0)
            block.set_force_sum_reduction_for_comms(True)
        self._join(module, mesh)

    def _join(self, module: nn.Module, mesh: DeviceMesh) -> None:
        """Let the blocks of a model know of each other.

        Then the next one is gathered while one computes, and what was sent of a gradient is given up when the next is
        sent; each by itself would keep it until the backward pass ends. The model has no part of its own to deal out.
        """
        for model in [part for part in module.modules() if isinstance(part, MultimodalModel)]:
            dealt = {parameter for block in blocks(model) for parameter in block.parameters()}
            fully_shard(model, mesh=mesh, ignored_params=set(model.parameters()) - dealt)

    def step(self, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Sum what every process has whole, clip all, step; see `Parallel.step`."""
        parameters = trained(optimiser)
        whole = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        sum_gradients(whole)
        dealt = [parameter.grad.to_local() for parameter in parameters if isinstance(parameter.grad, DTensor)]
        gradients = [parameter.grad for parameter in whole if parameter.grad is not None]
        norm = _norm(gradients, dealt, self.device)
        factor = (clip / (norm + 1e-6)).clamp(max=1.0)
        for gradient in [*dealt, *gradients]:
            gradient.mul_(factor)
        return norm, step_where_finite(optimiser, norm, loss)

    def own(self, parameter: nn.Parameter) -> Tensor:
        """The rows that this process keeps, or all of what is not dealt out."""
        local = parameter.detach()
        return local.to_local() if isinstance(local, DTensor) else local

    @contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """Gather all blocks, and keep them; see `Parallel.whole`."""
        dealt = [block for block in blocks(module) if isinstance(block, FSDPModule)]
        for block in dealt:
            block.set_reshard_after_forward(False)
            block.unshard()
        try:
            yield
        finally:
            for block in dealt:
                block.set_reshard_after_forward(True)
                block.reshard()

    def weights(self, module: nn.Module) -> dict[str, Tensor] | None:
        """Gathered one by one; see `Parallel.weights`."""
        return gathered(module.state_dict())

    def part_of(self, parameter: nn.Parameter, own: Tensor) -> Tensor:
        """The same rows of another tensor of that shape."""
        if not isinstance(parameter, DTensor):
            return own
        return DTensor.from_local(
            own, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
        )


def gathered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the processor of process 0, of such as are dealt out; nothing elsewhere."""
    found = {}
    for name, value in state.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if dist.get_rank() == 0:
            found[name] = whole.detach().cpu()
    return found


def _norm(whole: list[Tensor], dealt: list[Tensor], device: torch.device) -> Tensor:
    """Of the gradient of all parameters; the same on every process."""
    zero = torch.zeros((), device=device)
    square_of_dealt = torch.stack([zero, *(torch.linalg.vector_norm(part) ** 2 for part in dealt)]).sum()
    square_of_whole = torch.stack([zero, *(torch.linalg.vector_norm(part) ** 2 for part in whole)]).sum()
    return (sum_over_processes(square_of_dealt) + square_of_whole).sqrt()
