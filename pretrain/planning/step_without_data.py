"""A training step on fake tensors, which have no memory: operations, bytes of activations, calls of each block."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from foundation.data.batch import Batch
from foundation.model.layers.running import recomputed
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.training.parallel.base import blocks
from pretrain.config import PretrainConfig
from pretrain.planning.cohort import Cohort
from pretrain.planning.strategies import Around, Block
from pretrain.step import Logged, Pretraining, Step


@dataclass(frozen=True)
class EmptyStep:
    """One step on some records.

    Attributes:
        module: The model and its objectives.
        towers, forward, step: Operations per record.
        activations: Bytes, at the worst moment.
        blocks, around: The parameters, and how often those of a block are used in a forward pass.
    """

    module: Pretraining
    towers: dict[str, float]
    forward: float
    step: float
    activations: int
    blocks: tuple[Block, ...]
    around: Around


def run_step(config: PretrainConfig, cohort: Cohort, records: int) -> EmptyStep:
    """Run the step that a config trains with, on so many records of patients who have everything."""
    # Real masks and shapes without memory mix, so that whatever depends on presence is decided as in training.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    module = _build(config, cohort, fake).train()
    batch = _complete_batch(cohort, records, fake)
    module.freeze_what_no_view_asks_for(batch)
    low_precision = config.precision == "bfloat16"
    step = Step(module, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=low_precision))
    with (
        FlopCounterMode(display=False) as forward,
        step.autocast(),
        _RealMasks(),
        torch.no_grad(),
        _Calls(module) as calls,
    ):
        module.model(batch, module.views(batch), seed=config.seed)
    held = [tensor for p in module.parameters() for tensor in (p, p.grad) if tensor is not None]
    meter = _Meter([*held, *batch.images.values(), *batch.omics.values()])
    with meter, _RealMasks(), warnings.catch_warnings():
        # torch inspects the gradient of a real scalar that meets fake tensors, and warns about its own doing.
        warnings.filterwarnings("ignore", message="The .grad attribute", category=UserWarning)
        for loss in step.losses(batch, Logged()):
            loss.backward()
    by_module = forward.get_flop_counts()
    towers = {n: sum(by_module[f"MultimodalModel.towers.{n}"].values()) / records for n in module.model.towers}
    return EmptyStep(
        module,
        towers,
        forward.get_total_flops() / records,
        meter.operations / records,
        meter.most,
        *parameters_of(module, calls.counted),
    )


def parameters_of(module: nn.Module, calls: Sequence[int]) -> tuple[tuple[Block, ...], Around]:
    """The parameters of the blocks of all towers, and of what lies around them.

    Args:
        module: The model and its objectives.
        calls: Of each block, in one forward pass.
    """
    found = tuple(_block(block, count) for block, count in zip(blocks(module), calls, strict=True))
    inside = {id(parameter) for block in blocks(module) for parameter in block.parameters()}
    around = [parameter for parameter in module.parameters() if id(parameter) not in inside]
    trained = sum(parameter.numel() for parameter in around if parameter.requires_grad)
    return found, Around(sum(parameter.numel() for parameter in around), trained, len(around))


def _block(block: nn.Module, calls: int) -> Block:
    return Block(
        shapes=tuple(tuple(parameter.shape) for parameter in block.parameters()),
        parts=sum(any(True for _ in part.parameters(recurse=False)) for part in block.modules()),
        calls=calls,
        trained=any(parameter.requires_grad for parameter in block.parameters()),
    )


class _Calls:
    """Counts, while it lasts, how often each block of a module is called."""

    def __init__(self, module: nn.Module) -> None:
        self.blocks = blocks(module)
        self.counted = [0] * len(self.blocks)

    def __enter__(self) -> Self:
        self._hooks = [
            block.register_forward_pre_hook(partial(self._called, place)) for place, block in enumerate(self.blocks)
        ]
        return self

    def _called(self, place: int, *_: object) -> None:
        self.counted[place] += 1

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _build(config: PretrainConfig, cohort: Cohort, fake: FakeTensorMode) -> Pretraining:
    """Model and objectives whose weights have no memory; single numbers do, as losses read them."""
    settings = MultimodalConfig.of(cohort.modalities, config.towers, config.fusion, config.width)
    with init_empty_weights(include_buffers=False):
        # No file of pretrained weights need be read for its size.
        module = Pretraining.of(config, MultimodalModel(settings.self_contained()))
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            single = parameter.numel() == 1
            empty = torch.zeros(parameter.shape) if single else _without_memory(parameter.shape, fake)
            replaced = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            if not single and parameter.requires_grad:
                replaced.grad = _without_memory(parameter.shape, fake)
            setattr(part, name, replaced)
    for block in module.model.blocks() if config.activation_checkpointing else ():
        recomputed(block)
    return module


def _without_memory(shape: Any, fake: FakeTensorMode) -> Tensor:
    with fake:
        return torch.empty(shape)


def _complete_batch(cohort: Cohort, records: int, fake: FakeTensorMode) -> Batch:
    """A batch of patients who have everything."""
    names = [str(record) for record in range(records)]
    modalities, images, omics = tuple(cohort.modalities), cohort.images, cohort.omics
    return Batch(
        modalities=modalities,
        patients=names,
        records=names,
        rows=torch.arange(records),
        epochs=torch.zeros(records, dtype=torch.int64),
        present_BM=torch.ones(records, len(modalities), dtype=torch.bool),
        images={n: _without_memory((records, len(m.channels), *m.shape), fake) for n, m in images.items()},
        channels={n: torch.ones(records, len(m.channels), dtype=torch.bool) for n, m in images.items()},
        omics={n: _without_memory((records, len(m.features)), fake) for n, m in omics.items()},
        observed={n: torch.ones(records, len(m.features), dtype=torch.bool) for n, m in omics.items()},
        endpoints={},
        sites=[""] * records,
        groups=[""] * records,
    )


class _RealMasks(TorchFunctionMode):
    """Lets a mask that is real choose among tensors without memory: how many it chooses is known."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and not isinstance(args[1], FakeTensor):
            where = args[1].nonzero(as_tuple=True) if args[1].dtype == torch.bool else args[1]
            return func(args[0], where)
        return func(*args, **(kwargs or {}))


class _Meter(TorchDispatchMode):
    """Counts operations, and the bytes of what is made while it is on and not yet gone.

    torch's own counter of operations hangs hooks on every module, which keep activations alive.

    Args:
        before: Tensors that are there already and do not count.

    Attributes:
        operations: By torch's formulas: matrix products, convolutions, attention.
        most: Bytes at the worst moment.
    """

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.operations = self.most = self._now = 0
        self._known: set[int] = set()
        for tensor in before:
            self._notice(tensor, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **kwargs, out_val=made)
        tree_map_only(FakeTensor, lambda tensor: self._notice(tensor, tensor.untyped_storage().nbytes()), made)
        return made

    def _notice(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
