"""The strategies `zero2` and `zero3`: DeepSpeed deals out moments and gradients, and in stage 3 parameters too."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn import functional

from foundation.collectives import sum_over_processes
from foundation.training.parallel.base import Parallel, Precision, Result, begin_moments, blocks

BUCKET = 50_000_000
"""Numbers of gradients that are sent at once: 0.2 GB, and on a GPU twice; DeepSpeed would take ten times as many."""

ALWAYS = -1
"""In place of the number of a module that needs a parameter."""

MOMENTS = ("exp_avg", "exp_avg_sq")


class _Root(nn.Module):
    """What DeepSpeed takes for the model: its parameters are those of a module, its forward whatever is asked for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], Any]) -> Any:
        """What `compute` gives."""
        return compute()


class Zero(Parallel):
    """ZeRO through DeepSpeed itself.

    Rajbhandari et al. 2020, ZeRO: memory optimizations toward training trillion parameter models.

    Attributes:
        stage: 2 deals out gradients and moments, 3 parameters as well.
    """

    stage: int

    def __init__(self, precision: Precision = "float32", device: torch.device | None = None) -> None:
        super().__init__(precision, device)
        # It asks the environment, when it is imported, on what it is to run.
        os.environ.setdefault("DS_ACCELERATOR", self.device.type)
        self.engine: Any = None

    def take_over(self, module: nn.Module, optimiser: torch.optim.Optimizer, clip: float) -> None:
        """Give module and optimiser to DeepSpeed."""
        import deepspeed

        # It would compile a library for sums through shared memory; a build that is interrupted hangs all later ones.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        self.engine, *_ = deepspeed.initialize(
            model=_Root(module), optimizer=optimiser, config=self._config(clip), dist_init_required=False
        )
        self._begin_moments(optimiser)

    def _config(self, clip: float) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,  # Not used: batches are made elsewhere.
            # A step is over when it is made, however many backward passes there were.
            "managed_gradient_accumulation": False,
            "gradient_clipping": clip,
            "steps_per_print": 10**9,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": self.stage,
                "overlap_comm": self.device.type == "cuda",
                "reduce_bucket_size": BUCKET,
                "stage3_param_persistence_threshold": 0,
            },
        }

    def forward(self, compute: Callable[[], Result]) -> Result:
        """What `compute` gives, inside DeepSpeed's forward pass."""
        return self.engine(compute)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this process's share of a loss."""
        # DeepSpeed averages over processes, and a loss here is a sum.
        self.engine.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(self, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Step where all is finite; see `Parallel.step`."""
        total = sum_over_processes(loss)
        # DeepSpeed looks at gradients alone and skips a step where they are not finite; of the loss it does not know.
        optimiser.found_inf = (~torch.isfinite(total)).to(torch.float32)  # type: ignore[attr-defined]
        self.engine.step()
        norm = torch.as_tensor(self.engine.get_global_grad_norm(), device=self.device, dtype=torch.float32)
        return norm, torch.isfinite(norm) & torch.isfinite(total)

    def state(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps, dealt out by rows as the other strategies do, each parameter gathered in turn."""
        from deepspeed.utils import safe_get_full_optimizer_state

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        names = module.state_dict().keys()
        weights = {name: buffer for name, buffer in module.named_buffers() if name in names}
        kept: dict[str, Tensor] = {}
        steps = next(iter(optimiser.state.values()))["step"]
        for name, parameter in module.named_parameters():
            with self._whole(parameter):
                weights[name] = _rows(parameter.detach(), mesh)
            if parameter.requires_grad:
                kept[f"{name}/step"] = steps.cpu().clone()
                for moment in MOMENTS:
                    whole = safe_get_full_optimizer_state(parameter, moment)
                    assert whole is not None
                    kept[f"{name}/{moment}"] = _rows(whole, mesh)
        return {"module": weights, "optimiser": kept}

    def load(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        fill: Callable[[dict[str, dict[str, Tensor]]], None],
    ) -> None:
        """Take over a state; see `Parallel.load`."""
        state = self.state(module, optimiser)
        fill(state)
        for name, parameter in module.named_parameters():
            weights = _gathered(state["module"][name]).to(self.device)
            with self._whole(parameter, write=True), torch.no_grad():
                parameter.copy_(weights)
            if parameter.requires_grad:
                self._set_weights(parameter, weights)
                for moment in MOMENTS:
                    values = _gathered(state["optimiser"][f"{name}/{moment}"]).to(self.device)
                    self._set_moment(parameter, moment, values)
                for kept in optimiser.state.values():
                    kept["step"].copy_(state["optimiser"][f"{name}/step"])

    @abstractmethod
    def _begin_moments(self, optimiser: torch.optim.Optimizer) -> None:
        """Make the moments before the first step, of what DeepSpeed has made of the parameters."""

    @abstractmethod
    def _set_weights(self, parameter: nn.Parameter, whole: Tensor) -> None:
        """Set what DeepSpeed steps in place of a parameter."""

    @abstractmethod
    def _set_moment(self, parameter: nn.Parameter, moment: str, whole: Tensor) -> None:
        """Set a moment of a parameter."""

    def _whole(self, parameter: nn.Parameter, write: bool = False) -> AbstractContextManager[Any]:
        """While this lasts the parameter is whole; by default it always is."""
        return nullcontext()


class Zero2(Zero):
    """Gradients and moments are dealt out."""

    stage = 2

    def _begin_moments(self, optimiser: torch.optim.Optimizer) -> None:
        begin_moments(optimiser, [flat for group in optimiser.param_groups for flat in group["params"]])
        self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _set_weights(self, parameter: nn.Parameter, whole: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        safe_set_full_fp32_param(parameter, whole)

    def _set_moment(self, parameter: nn.Parameter, moment: str, whole: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(parameter, whole, moment)


class Zero3(Zero):
    """Parameters, gradients and moments are dealt out."""

    stage = 3
    # The average would be of parameters that are empty between forward passes.
    cannot = ("ema",)

    def take_over(self, module: nn.Module, optimiser: torch.optim.Optimizer, clip: float) -> None:
        """Give all to DeepSpeed, and keep whole what lies around the blocks of towers.

        DeepSpeed gathers a module's parameters when its forward pass begins, and again in the backward pass where its
        output is a tensor; towers and objectives give more than that.
        """
        super().take_over(module, optimiser, clip)
        self.dealt: list[Any] = [parameter for block in blocks(module) for parameter in block.parameters()]
        known = {id(parameter) for parameter in self.dealt}
        self.around: list[Any] = [parameter for parameter in module.parameters() if id(parameter) not in known]
        for parameter in self.around:
            parameter.ds_persist = True
        self.engine.optimizer.persistent_parameters += self.around

    def forward(self, compute: Callable[[], Result]) -> Result:
        """What `compute` gives, inside DeepSpeed's forward pass."""

        def untraced() -> Result:
            # It would expect the modules of the forward pass before, in their order, and steps have several.
            self.engine.optimizer.parameter_offload.get_param_coordinator()._invalidate_trace()
            _keep(self.around)
            return compute()

        return self.engine(untraced)

    @contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """Gather all parameters, and keep them; see `Parallel.whole`."""
        _keep([*self.around, *self.dealt])
        try:
            yield
        finally:
            for parameter in self.dealt:
                parameter.ds_active_sub_modules.discard(ALWAYS)
                parameter.partition()

    def weights(self, module: nn.Module) -> dict[str, Tensor] | None:
        """Gathered one by one; see `Parallel.weights`."""
        found = dict(module.state_dict())
        for name, parameter in module.named_parameters():
            with self._whole(parameter):
                found[name] = parameter.detach().cpu().clone() if self.rank == 0 else parameter.detach()
        return found

    def _begin_moments(self, optimiser: torch.optim.Optimizer) -> None:
        begin_moments(optimiser, self.engine.optimizer.fp32_partitioned_groups_flat)

    def _set_weights(self, parameter: nn.Parameter, whole: Tensor) -> None:
        from deepspeed.utils import safe_set_local_fp32_param

        safe_set_local_fp32_param(parameter, self._piece(parameter, whole))

    def _set_moment(self, parameter: nn.Parameter, moment: str, whole: Tensor) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(parameter, self._piece(parameter, whole), moment)

    def _piece(self, parameter: Any, whole: Tensor) -> Tensor:
        """What this process keeps: pieces of all are equally long, the last one filled up with zeros."""
        size = parameter.ds_tensor.numel()
        filled = functional.pad(whole.flatten(), (0, size * self.world_size - whole.numel()))
        return filled[size * self.rank : size * (self.rank + 1)]

    def _whole(self, parameter: nn.Parameter, write: bool = False) -> AbstractContextManager[Any]:
        import deepspeed

        # The next forward pass gathers it again where it is to be kept.
        parameter.ds_active_sub_modules.discard(ALWAYS)  # type: ignore[attr-defined]
        return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0 if write else None)


def _keep(parameters: list[Any]) -> None:
    """Gather parameters where they are not, and have DeepSpeed take them for needed."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    given_up = [parameter for parameter in parameters if parameter.ds_status == ZeroParamStatus.NOT_AVAILABLE]
    if given_up:
        given_up[0].all_gather(given_up)
    for parameter in parameters:
        parameter.ds_active_sub_modules.add(ALWAYS)


def _rows(whole: Tensor, mesh: DeviceMesh) -> Tensor:
    """This process's rows of a tensor that every process has, on the processor."""
    if whole.ndim == 0:
        return whole.cpu().clone()
    dealt = distribute_tensor(whole.cpu(), mesh, [Shard(0)], src_data_rank=None)
    # A part of a tensor would keep all of it alive.
    own = dealt.to_local().clone()
    return DTensor.from_local(own, mesh, [Shard(0)], shape=whole.shape, stride=whole.stride())


def _gathered(dealt: Tensor) -> Tensor:
    return dealt.full_tensor() if isinstance(dealt, DTensor) else dealt
