"""What a run will cost, without running it: counts of parameters, operations, memory, network, storage, hours.

The model is built on the meta device, and the very step that training runs is run once on tensors that have shapes and
no memory (torch's fake tensors), under a counter of operations and a counter of what is alive. Presence is real and
complete: every patient has everything, which is the dearest there is.

Memory is that of what a strategy keeps of weights, gradients and the optimiser (`strategies.py`), of the batch, and of
activations: the most that the step holds at any moment beside those, with autocast's copies of the weights, attention
that never writes out its scores, and nothing for the allocator's waste. A cached step holds the activations of one
chunk at a time.

Times follow from operations and from what is assumed of the machines (`hardware.py`), or from a run that was measured
(`rate.py`).
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
from foundation.objectives.contrastive.pairs import PairwiseObjective
from foundation.progress import Progress, Silent
from foundation.training.parallel.strategies import Strategy
from pretrain.config import PretrainConfig
from pretrain.planning.cohort import Cohort
from pretrain.planning.hardware import Hardware
from pretrain.planning.memory import Activations
from pretrain.planning.rate import assumed, measured
from pretrain.planning.scale import Scale, Task, scale_of
from pretrain.planning.step_without_data import EmptyStep, run_step
from pretrain.planning.strategies import Shared
from pretrain.step import Pretraining


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
class Plan:
    """What a run will cost.

    Attributes:
        parameters: Of each tower, ``projections``, ``fusion``, each objective, and ``total``.
        operations: Per record, on the first number of GPUs.
        hardware: What is assumed of the machines.
        strategy: Of the config.
        batch_size: Over all GPUs.
        steps, samples: Of the whole run, about, as patients are held out and not records.
        operations_of_run: Of all steps.
        bytes_per_record: As stored.
        scales: For each number of GPUs.
    """

    parameters: dict[str, int]
    operations: Operations
    hardware: Hardware
    strategy: Strategy
    batch_size: int
    steps: int
    samples: int
    operations_of_run: float
    bytes_per_record: float
    scales: list[Scale]

    def document(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {**asdict(self), "hardware": self.hardware.model_dump()}


def make_plan(
    path: Path,
    overrides: Sequence[str] = (),
    gpus: Sequence[int] = (1,),
    hardware: Path | None = None,
    run: Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Plan the run of a YAML.

    Args:
        path: The YAML; its `cohort`, or some of its `cohorts`, may be files of `Shapes`.
        overrides: ``key=value`` changes to it.
        gpus: Over how many the batch is split.
        hardware: A YAML of `Hardware`; None for what it assumes by itself.
        run: Folder of a run of the same model, whose measured speed is taken.
        progress: Told of each way to run the step.

    Raises:
        ConfigError, DataError: The config does not fit the cohort, the batch the GPUs, or the run the config.
    """
    config = load_config(PretrainConfig, path, overrides)
    machines = Hardware() if hardware is None else load_config(Hardware, hardware)
    cohort = Cohort.read([part.path for part in config.parts], config.preprocessing.modalities, config.cache)
    return plan_of(config, cohort, gpus, machines, run, progress)


def plan_of(
    config: PretrainConfig,
    cohort: Cohort,
    gpus: Sequence[int] = (1,),
    hardware: Hardware | None = None,
    run: Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Plan a run; see `make_plan`."""
    if max(gpus) > config.batch_size:
        raise ConfigError(
            f"a batch of {config.batch_size} cannot give each of {max(gpus)} GPUs a record", fix="raise batch_size"
        )
    hardware = hardware or Hardware()
    known = None if run is None else measured(run, config)
    steps = max(1, round(config.epochs * config.held_out.training_records(cohort.records) / config.samples_per_step))
    tried = _Tried.of(config, cohort, gpus, progress or Silent())
    module = tried.of_share(gpus[0])[0].module
    task = Task(config, cohort, hardware, _pairs(module), steps)
    scales = []
    for number in gpus:
        operations = tried.operations(number)
        rate = known or assumed(operations.step, config, hardware)
        scales.append(scale_of(task, tried.shared(number), rate, tried.activations(number), number))
    operations, samples = tried.operations(gpus[0]), steps * config.samples_per_step
    return Plan(
        parameters=_parameters(module),
        operations=operations,
        hardware=hardware,
        strategy=config.strategy,
        batch_size=config.batch_size,
        steps=steps,
        samples=samples,
        operations_of_run=samples * operations.step,
        bytes_per_record=cohort.stored / cohort.records,
        scales=scales,
    )


@dataclass(frozen=True)
class _Tried:
    """Steps without data, on as many records as each number of GPUs embeds at once.

    Attributes:
        config: Of the run.
        steps: Records to the step as configured, with all activations kept, and with activation checkpointing.
    """

    config: PretrainConfig
    steps: dict[int, tuple[EmptyStep, EmptyStep, EmptyStep]]

    @classmethod
    def of(cls, config: PretrainConfig, cohort: Cohort, gpus: Sequence[int], progress: Progress) -> _Tried:
        """Run the steps; those of two configs that are the same are one."""
        kept, checkpointed = (config.model_copy(update={"activation_checkpointing": on}) for on in (False, True))
        sizes = list(dict.fromkeys(_at_once(config, number) for number in gpus))
        progress.start("counting", 2 * len(sizes), "steps without data")
        steps = {}
        for records in sizes:
            found = []
            for variant in (kept, checkpointed):
                found.append(run_step(variant, cohort, records))
                progress.advance()
            steps[records] = found[config.activation_checkpointing], found[0], found[1]
        progress.finish()
        return cls(config, steps)

    def of_share(self, gpus: int) -> tuple[EmptyStep, EmptyStep, EmptyStep]:
        """The steps on so many GPUs."""
        return self.steps[_at_once(self.config, gpus)]

    def chunks(self, gpus: int) -> int:
        """How many chunks each GPU makes of its share of a batch."""
        return math.ceil(math.ceil(self.config.batch_size / gpus) / _at_once(self.config, gpus))

    def operations(self, gpus: int) -> Operations:
        """Per record, on so many GPUs."""
        configured, kept, _ = self.of_share(gpus)
        again = kept.forward if self.chunks(gpus) > 1 else 0
        return Operations(kept.towers, kept.forward, kept.step, configured.step + again)

    def activations(self, gpus: int) -> Activations:
        """On each of so many GPUs."""
        configured, kept, checkpointed = self.of_share(gpus)
        return Activations(
            configured.activations, kept.activations, checkpointed.activations, _at_once(self.config, gpus)
        )

    def shared(self, gpus: int) -> Shared:
        """What strategies share out over so many GPUs."""
        step, chunks = self.of_share(gpus)[0], self.chunks(gpus)
        passes = self.config.accumulate * chunks
        return Shared(
            step.blocks,
            step.around,
            with_gradient=passes,
            without=passes if chunks > 1 else 0,
            averaged=self.config.ema is not None,
            recomputed=self.config.activation_checkpointing,
        )


def _at_once(config: PretrainConfig, gpus: int) -> int:
    """Records that each GPU embeds at once."""
    share = math.ceil(config.batch_size / gpus)
    return min(config.chunk_size or share, share)


def _pairs(module: Pretraining) -> int:
    return sum(len(each.pairs) for each in module.objectives.values() if isinstance(each, PairwiseObjective))


def _parameters(module: Pretraining) -> dict[str, int]:
    parts: dict[str, nn.Module] = {
        **module.model.towers,
        "projections": module.model.projections,
        "fusion": module.model.fusion,
        **module.objectives,
    }
    counted = {name: count_parameters(part)["total"] for name, part in parts.items()}
    return {**counted, "total": count_parameters(module)["total"]}
