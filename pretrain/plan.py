"""What a run will cost, without running it: counts of parameters, operations, memory per GPU, steps.

The model is built on the meta device, and the very step that training runs is run once on tensors that have shapes and
no memory (torch's fake tensors), under a counter of operations and a counter of what is alive. Presence is real and
complete: every patient has everything, which is the dearest there is.

Memory is that of weights, gradients, AdamW's two moments, and activations: the most that the step holds at any moment
beside those, with autocast's copies of the weights, attention that never writes out its scores, and nothing for the
allocator's waste or for buffers of communication. A cached step holds the activations of one chunk at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from foundation.config import load_config
from foundation.errors import ConfigError
from foundation.model.towers.base import count_parameters
from foundation.progress import Progress, Silent
from pretrain.config import PretrainConfig
from pretrain.planned_cohort import Cohort
from pretrain.step import Pretraining
from pretrain.step_without_data import EmptyStep, run_step

GPU_SIZES = (24, 40, 80, 141)
"""Gigabytes: L4 and RTX 4090, A100, A100 and H100, H200."""

USABLE = 0.9
"""Of a GPU's memory; the rest goes to its context, to communication, and to gaps between tensors."""


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
        path: The YAML; its `cohort`, or some of its `cohorts`, may be files of `Shapes`.
        overrides: ``key=value`` changes to it.
        gpus: Over how many the batch is split.
        progress: Told of each way to run the step.

    Raises:
        ConfigError, DataError: The config does not fit the cohort, or the batch the GPUs.
    """
    config = load_config(PretrainConfig, path, overrides)
    cohort = Cohort.read([part.path for part in config.parts], config.preprocessing.modalities, config.cache)
    return size_of(config, cohort, gpus, progress)


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


def _run_each(variants: list[PretrainConfig], cohort: Cohort, records: int, progress: Progress) -> list[EmptyStep]:
    """A step of each config; configs that are the same are run once."""
    different = {config.model_dump_json(): config for config in variants}
    progress.start("counting", len(different), "steps without data")
    runs = {}
    for text, config in different.items():
        runs[text] = run_step(config, cohort, records)
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
