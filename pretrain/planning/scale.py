"""A run on so many GPUs: what each strategy needs there, what storage has to give, and what breaks first."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from foundation.training.parallel.strategies import STRATEGIES, Strategy
from pretrain.config import PretrainConfig
from pretrain.planning.cohort import Cohort
from pretrain.planning.hardware import Hardware
from pretrain.planning.memory import USABLE, Activations, Memory, memory_of
from pretrain.planning.rate import Rate
from pretrain.planning.strategies import COSTS, Shared, contrast
from pretrain.planning.timing import Timing, timing_of

WORTH = 0.8
"""Share of a step that has to be computation; below it, communication has broken."""


@dataclass(frozen=True)
class Task:
    """A run, as far as it does not depend on how many GPUs it has.

    Attributes:
        config, cohort, hardware: Of the run.
        pairs: Of views that are compared in each contrast.
        steps: Of the whole run.
    """

    config: PretrainConfig
    cohort: Cohort
    hardware: Hardware
    pairs: int
    steps: int


@dataclass(frozen=True)
class StrategyPlan:
    """What a strategy needs on each GPU.

    Attributes:
        cannot: The key of the config that it cannot do what is asked for; the rest is then None.
        memory, timing: Of the strategy.
    """

    cannot: str | None
    memory: Memory | None = None
    timing: Timing | None = None


@dataclass(frozen=True)
class Storage:
    """What a run reads and writes with its shortest step.

    Attributes:
        samples_per_second: Of the whole run.
        bytes_per_second, of_node: To be read, by all nodes and by each.
        checkpoint: Bytes.
        checkpoint_seconds: That writing it takes, beside training.
    """

    samples_per_second: float
    bytes_per_second: float
    of_node: float
    checkpoint: int
    checkpoint_seconds: float


@dataclass(frozen=True)
class Scale:
    """A run on so many GPUs; the batch over all of them is that of the config.

    Attributes:
        gpus: How many.
        share: Records of the batch on each, at the most.
        rate: How long a record takes.
        activations: On each.
        strategies: By name.
        storage: With the strategy of the config, as are the following.
        hours: Of the whole run, with the shortest and with the longest step.
        loads: What may break, to how near it is to that; above 1 it has broken.
        first: What breaks first: the one with the greatest load.
    """

    gpus: int
    share: int
    rate: Rate
    activations: Activations
    strategies: dict[Strategy, StrategyPlan]
    storage: Storage
    hours: tuple[float, float]
    loads: dict[str, float]
    first: str


def scale_of(task: Task, shared: Shared, rate: Rate, activations: Activations, gpus: int) -> Scale:
    """Plan a run on so many GPUs.

    Args:
        task: The run.
        shared: What the strategies share out.
        rate: How long a record takes.
        activations: On each GPU.
        gpus: How many.
    """
    share = math.ceil(task.config.batch_size / gpus)
    strategies: dict[Strategy, StrategyPlan] = {
        name: _plan(task, name, shared, rate, activations, gpus) for name in STRATEGIES
    }
    own = strategies[task.config.strategy]
    assert own.memory is not None and own.timing is not None
    storage = _storage(task, shared, own.timing, gpus)
    hours = task.steps * own.timing.shortest / 3600, task.steps * own.timing.longest / 3600
    loads = _loads(task, own.memory, own.timing, storage, share, gpus)
    first = max(loads, key=lambda name: loads[name])
    return Scale(gpus, share, rate, activations, strategies, storage, hours, loads, first)


def _plan(task: Task, name: Strategy, shared: Shared, rate: Rate, activations: Activations, gpus: int) -> StrategyPlan:
    config = task.config
    for key in STRATEGIES[name].cannot:
        if getattr(config, key) != type(config).model_fields[key].default:
            return StrategyPlan(key)
    share = math.ceil(config.batch_size / gpus)
    kept, traffic = COSTS[name](shared, gpus)
    compared, of_contrast = contrast(task.pairs, config.batch_size, config.width)
    cached = activations.records_at_once < share
    memory = memory_of(kept, share * task.cohort.in_batch, activations.configured, compared * (gpus > 1), cached)
    times = config.accumulate
    repeated = [replace(each, size=times * each.size, count=times * each.count) for each in of_contrast]
    timing = timing_of([*traffic, *repeated], task.hardware, gpus, share * times * rate.seconds)
    return StrategyPlan(None, memory, timing)


def _storage(task: Task, shared: Shared, timing: Timing, gpus: int) -> Storage:
    rate = task.config.samples_per_step / timing.shortest
    read = rate * task.cohort.stored / task.cohort.records
    # Weights, two moments, and the average.
    checkpoint = 4 * shared.numbers + 4 * shared.trained * (2 + shared.averaged)
    return Storage(
        rate,
        read,
        read / task.hardware.nodes(gpus),
        checkpoint,
        checkpoint / task.hardware.storage_speed(gpus),
    )


def _loads(task: Task, memory: Memory, timing: Timing, storage: Storage, share: int, gpus: int) -> dict[str, float]:
    """Each is 1 where it breaks; of communication alone the part that cannot be hidden counts."""
    of_contrast = timing.seconds["contrast"]
    others = timing.shortest - timing.compute - of_contrast
    allowed = timing.compute * (1 / WORTH - 1)
    return {
        "memory": memory.total / (USABLE * task.hardware.gpu_memory * 1e9),
        "network": others / allowed,
        "contrastive gather": of_contrast / allowed,
        "storage": storage.bytes_per_second / task.hardware.storage_speed(gpus),
        "batch too small": (task.config.chunk_size or 1) / share,
    }
