"""What a run will cost, without running it: parameters, operations, memory per GPU, steps.

The model is built on the meta device, and the very step that training runs is run once on tensors that have shapes and
no memory (torch's fake tensors), under a counter of operations and a counter of what is alive. Presence is real and
complete: every patient has everything, which is the dearest there is.

Memory is that of weights, gradients, AdamW's two moments, and activations: the most that the step holds at any moment
beside those, with autocast's copies of the weights, attention that never writes out its scores, and nothing for the
allocator's waste or for buffers of communication. A cached step holds the activations of one chunk at a time.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from accelerate import init_empty_weights
from pydantic import Field
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from foundation.cohort.manifest import ImageEntry
from foundation.cohort.store import PreparedCohort
from foundation.config import Config, load_config
from foundation.data.batch import Batch
from foundation.errors import ConfigError, nearest
from foundation.modality import ImageModality, OmicsModality
from foundation.model.layers.running import recomputed
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import count_parameters
from foundation.progress import Progress, Silent
from pretrain.config import PretrainConfig
from pretrain.step import Logged, Pretraining, Step

GPU_SIZES = (24, 40, 80, 141)
"""Gigabytes: L4 and RTX 4090, A100, A100 and H100, H200."""
USABLE = 0.9
"""Of a GPU's memory; the rest goes to its context, to communication, and to gaps between tensors."""


class ImageShape(Config):
    """An image modality, as far as its size goes."""

    kind: Literal["image"]
    shape: list[int] = Field(min_length=2, max_length=3, description="Voxels per axis.")
    channels: int = Field(default=1, ge=1)


class OmicsShape(Config):
    """An omics modality, as far as its size goes."""

    kind: Literal["omics"]
    features: int = Field(ge=1, description="The n-th features of all modalities are taken to be the same gene.")
    values: Literal["continuous", "binary", "ordinal", "count"] = "continuous"


class Shapes(Config):
    """What a plan needs to know of a cohort; written out, it stands for one that does not exist yet."""

    records: int = Field(ge=1)
    modalities: dict[str, Annotated[ImageShape | OmicsShape, Field(discriminator="kind")]] = Field(min_length=1)


@dataclass(frozen=True)
class Cohort:
    """What a plan knows of a cohort.

    Attributes:
        records: Held-out ones included.
        modalities: Name to description.
    """

    records: int
    modalities: dict[str, ImageModality | OmicsModality]

    @classmethod
    def read(cls, path: Path, modalities: list[str] | None) -> Cohort:
        """Read a prepared cohort, or a YAML file of `Shapes`.

        Args:
            path: Folder or file.
            modalities: Which to keep, in their order; None for all.

        Raises:
            ConfigError, DataError: It is neither, or lacks a modality.
        """
        records, known = _from_shapes(path) if path.is_file() else _from_cohort(path)
        for name in modalities or known:
            if name not in known:
                fix = nearest(name, known)
                raise ConfigError(f"no modality is called '{name}'", where="preprocessing.modalities", fix=fix)
        return cls(records, {name: known[name] for name in modalities or known})

    @property
    def images(self) -> dict[str, ImageModality]:
        """The image modalities."""
        return {name: m for name, m in self.modalities.items() if isinstance(m, ImageModality)}

    @property
    def omics(self) -> dict[str, OmicsModality]:
        """The omics modalities."""
        return {name: m for name, m in self.modalities.items() if isinstance(m, OmicsModality)}


def _from_shapes(path: Path) -> tuple[int, dict[str, ImageModality | OmicsModality]]:
    shapes = load_config(Shapes, path)
    return shapes.records, {name: _described(modality) for name, modality in shapes.modalities.items()}


def _described(shape: ImageShape | OmicsShape) -> ImageModality | OmicsModality:
    if isinstance(shape, ImageShape):
        return ImageModality(channels=[f"channel {c}" for c in range(shape.channels)], shape=shape.shape)
    return OmicsModality(features=[f"feature {f}" for f in range(shape.features)], values=shape.values)


def _from_cohort(path: Path) -> tuple[int, dict[str, ImageModality | OmicsModality]]:
    cohort = PreparedCohort(path)
    known: dict[str, ImageModality | OmicsModality] = {}
    for name, entry in cohort.manifest.modalities.items():
        if isinstance(entry, ImageEntry):
            known[name] = ImageModality(channels=list(entry.channels), shape=entry.shape)
        else:
            known[name] = OmicsModality(features=cohort.features[name], values=entry.values)
    return len(cohort), known


@dataclass(frozen=True)
class Operations:
    """Floating-point operations per record; a multiplication and an addition are two.

    Attributes:
        towers: Of each tower's forward pass, over all views that the objectives ask for.
        forward: Of all forward passes.
        forward_and_backward: Of the losses and their gradient, nothing computed twice.
        step: What the config makes of it: with what cached steps and activation checkpointing compute again.
    """

    towers: dict[str, float]
    forward: float
    forward_and_backward: float
    step: float


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    Attributes:
        weights, gradients, optimiser: In float32; AdamW keeps two numbers for each trained parameter.
        average: Of the moving average of the weights; 0 where the config asks for none.
        activations: With the activation checkpointing of the config.
        activations_kept, activations_checkpointed: Without it, and with it.
        records_at_once: What the activations are of: a chunk, or this GPU's share of the batch.
        ddp, sharded: In all, with everything on every GPU, and with all but activations dealt out over the GPUs.
        fits: Size of a GPU in gigabytes to whether `ddp` and `sharded` fit.
    """

    weights: int
    gradients: int
    optimiser: int
    average: int
    activations: int
    activations_kept: int
    activations_checkpointed: int
    records_at_once: int
    ddp: int
    sharded: int
    fits: dict[int, dict[str, bool]]


@dataclass(frozen=True)
class Plan:
    """What a run will cost.

    Attributes:
        parameters: Of each tower, ``projections``, ``fusion``, each objective, and ``total``.
        operations: Per record.
        memory: Per GPU.
        gpus: Over how many the batch is split.
        batch_size: Over all GPUs.
        steps, samples: Of the whole run, about, as patients are held out and not records.
        operations_of_run: Of all steps.
    """

    parameters: dict[str, int]
    operations: Operations
    memory: Memory
    gpus: int
    batch_size: int
    steps: int
    samples: int
    operations_of_run: float

    def document(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)


def make_plan(path: Path, overrides: Sequence[str] = (), gpus: int = 1, progress: Progress | None = None) -> Plan:
    """Plan the run of a YAML.

    Args:
        path: The YAML; its `cohort` may be a file of `Shapes`.
        overrides: ``key=value`` changes to it.
        gpus: Over how many the batch is split.
        progress: Told of each way to run the step.

    Raises:
        ConfigError, DataError: The config does not fit the cohort, or the batch the GPUs.
    """
    config = load_config(PretrainConfig, path, overrides)
    return size_of(config, Cohort.read(config.cohort, config.preprocessing.modalities), gpus, progress)


def size_of(config: PretrainConfig, cohort: Cohort, gpus: int = 1, progress: Progress | None = None) -> Plan:
    """Plan a run; see `make_plan`."""
    if gpus > config.batch_size:
        raise ConfigError(
            f"a batch of {config.batch_size} cannot give each of {gpus} GPUs a record", fix="raise batch_size"
        )
    share = math.ceil(config.batch_size / gpus)
    records = min(config.chunk_size or share, share)
    variants = [config, *(config.model_copy(update={"activation_checkpointing": on}) for on in (False, True))]
    configured, kept, checkpointed = _run_each(variants, cohort, records, progress or Silent())
    parameters = _parameters(configured.module)
    again = kept.forward if records < share else 0
    operations = Operations(
        towers=kept.towers,
        forward=kept.forward,
        forward_and_backward=kept.step,
        step=configured.step + again,
    )
    activations = {"kept": kept.activations, "checkpointed": checkpointed.activations}
    memory = _memory(
        count_parameters(configured.module), config.ema is not None, configured.activations, activations, records, gpus
    )
    steps = max(1, round(config.epochs * config.held_out.training_records(cohort.records) / config.samples_per_step))
    samples = steps * config.samples_per_step
    return Plan(parameters, operations, memory, gpus, config.batch_size, steps, samples, samples * operations.step)


def _run_each(variants: list[PretrainConfig], cohort: Cohort, records: int, progress: Progress) -> list[_Step]:
    """A step of each config; configs that are the same are run once."""
    different = {config.model_dump_json(): config for config in variants}
    progress.start("counting", len(different), "steps without data")
    runs = {}
    for text, config in different.items():
        runs[text] = _run_step(config, cohort, records)
        progress.advance()
    progress.finish()
    return [runs[config.model_dump_json()] for config in variants]


def _memory(
    counted: dict[str, int], averaged: bool, activations: int, variants: dict[str, int], records: int, gpus: int
) -> Memory:
    weights, trained = 4 * counted["total"], 4 * counted["trainable"]
    average = weights * averaged
    whole = weights + average + 3 * trained
    ddp, sharded = whole + activations, math.ceil(whole / gpus) + activations
    fits = {size: {"ddp": ddp <= USABLE * size * 1e9, "sharded": sharded <= USABLE * size * 1e9} for size in GPU_SIZES}
    return Memory(
        weights=weights,
        gradients=trained,
        optimiser=2 * trained,
        average=average,
        activations=activations,
        activations_kept=variants["kept"],
        activations_checkpointed=variants["checkpointed"],
        records_at_once=records,
        ddp=ddp,
        sharded=sharded,
        fits=fits,
    )


def _parameters(module: Pretraining) -> dict[str, int]:
    parts: dict[str, nn.Module] = {
        **module.model.towers,
        "projections": module.model.projections,
        "fusion": module.model.fusion,
        **module.objectives,
    }
    counted = {name: count_parameters(part)["total"] for name, part in parts.items()}
    return {**counted, "total": count_parameters(module)["total"]}


@dataclass(frozen=True)
class _Step:
    """One step on some records: operations per record, and bytes of activations."""

    module: Pretraining
    towers: dict[str, float]
    forward: float
    step: float
    activations: int


def _run_step(config: PretrainConfig, cohort: Cohort, records: int) -> _Step:
    # Real masks and shapes without memory mix, so that whatever depends on presence is decided as in training.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    module = _build(config, cohort, fake).train()
    batch = _complete_batch(cohort, records, fake)
    module.freeze_what_no_view_asks_for(batch)
    low_precision = config.precision == "bfloat16"
    step = Step(module, module.model, lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=low_precision))
    with FlopCounterMode(display=False) as forward, step.autocast(), _RealMasks(), torch.no_grad():
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
    return _Step(module, towers, forward.get_total_flops() / records, meter.operations / records, meter.most)


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
