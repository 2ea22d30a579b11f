"""The training loop: batches in, updates, checkpoints; stopped anywhere and started again, it gives the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from foundation.collectives import gather_rows, gather_sizes
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.errors import ChiasmaError
from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.hang import HangWatch
from foundation.training.parallel.base import Parallel
from foundation.training.stopping import StopRequests, stopped
from foundation.training.update import Updated
from pretrain.config import PretrainConfig
from pretrain.drawing import Drawing
from pretrain.monitor import Monitor
from pretrain.step import Logged, Pretraining, Step
from pretrain.stragglers import Stragglers

CPU = torch.device("cpu")


@dataclass
class Run:
    """Everything a training loop needs."""

    config: PretrainConfig
    steps: int
    dataset: CohortDataset
    drawing: Drawing
    pretraining: Pretraining
    state: State
    parallel: Parallel
    checkpoints: Checkpoints
    monitor: Monitor
    evaluate: Callable[[], dict[str, Any]]


def train(run: Run, position: Position) -> Position:
    """Train from a position to the end.

    Raises:
        ChiasmaError: Too many steps in a row were not finite.
        Stopped: Somebody asked for it.
    """
    config, updater = run.config, run.state.updater
    step = Step(run.pretraining, run.parallel.forward, run.parallel.autocast, config.chunk_size)
    batches, window, stragglers = Batches(run, position), Window(), Stragglers()
    run.pretraining.train()
    with (
        StopRequests() as requests,
        HangWatch(config.out / "stacks", config.hang_after) as watch,
        run.checkpoints.writing(),
    ):
        while position.step < run.steps:
            logged = Logged()
            updated = updater.update(_losses(step, batches, logged, config.accumulate), position.step, run.steps)
            window.add(updated, logged, batches.taken())
            position = replace(
                position, step=position.step + 1, samples_seen=position.samples_seen + config.samples_per_step
            )
            asked = requests.of_all()
            watch.moved()
            if asked or _is_due(run, position):
                position = _log(run, position, window, stragglers)
                window = Window()
                window.saved = _save_and_evaluate(run, position, asked, watch)
            if asked:
                run.checkpoints.finish()
                raise stopped(asked, position.step)
        run.checkpoints.finish()
    return position


def _losses(step: Step, batches: Batches, logged: Logged, accumulate: int) -> Iterator[Tensor]:
    """Scalars whose gradients add up to the mean over the batches of one step."""
    for _ in range(accumulate):
        yield from step.losses(next(batches), logged, 1 / accumulate)


class Batches:
    """The batches of a run from a position on, on its device.

    Attributes:
        rows: Of the cohort, of each batch since `taken` was last called.
        waited: Seconds spent waiting for them.
    """

    def __init__(self, run: Run, position: Position) -> None:
        self.dataset, self.device = run.dataset, run.parallel.device
        order = run.drawing.order(
            run.config,
            samples_seen=position.samples_seen,
            batches=(run.steps - position.step) * run.config.accumulate,
            rank=run.parallel.rank,
            world_size=run.parallel.world_size,
        )
        pin_memory = self.device.type == "cuda"
        self._batches = iter(load(run.dataset, order, workers=run.config.workers, pin_memory=pin_memory))
        self.rows: list[Tensor] = []
        self.waited = 0.0

    def __next__(self) -> Batch:
        """The next one."""
        asked = time.perf_counter()
        batch = next(self._batches)
        self.dataset.note(batch.quarantined)
        self.rows.append(batch.rows)
        batch = batch.to(self.device, non_blocking=True)
        self.waited += time.perf_counter() - asked
        return batch

    def taken(self) -> tuple[list[Tensor], float]:
        """Rows of the batches since the last call, and the seconds that were spent waiting for them."""
        taken = self.rows, self.waited
        self.rows, self.waited = [], 0.0
        return taken


@dataclass
class Window:
    """Steps since the last one that was logged; their numbers stay on the device.

    Attributes:
        updated: What came of each.
        logged: What each says of its losses.
        rows: Of the cohort, of each step.
        waited: Seconds spent waiting for data.
        saved: Seconds spent waiting for a checkpoint, which is written in the background, at the beginning.
        started: On the clock.
    """

    updated: list[Updated] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    rows: list[list[Tensor]] = field(default_factory=list)
    waited: float = 0.0
    saved: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def add(self, updated: Updated, logged: Logged, taken: tuple[list[Tensor], float]) -> None:
        """Count in a step."""
        self.updated.append(updated)
        self.logged.append(logged)
        self.rows.append(taken[0])
        self.waited += taken[1]

    def alone(self) -> float:
        """Seconds that this process loaded records and embedded them, mostly without the others."""
        return self.waited + sum(each.embedding.seconds() for each in self.logged)

    def means(self) -> dict[str, Tensor]:
        """Of what the steps say of their losses and gradients."""
        told = [each.values() for each in self.logged]
        means = {key: torch.stack([each[key] for each in told]).double().mean() for key in told[0]}
        norms = torch.stack([each.gradient_norm for each in self.updated])
        return {**means, "gradient_norm": norms.double().mean()}


def _is_due(run: Run, position: Position) -> bool:
    """Whether somebody wants to know of this step."""
    config = run.config
    often = [config.log_every, config.checkpoint_every, *([config.evaluate_every] if config.evaluate_every else [])]
    return position.step == run.steps or any(position.step % every == 0 for every in often)


def _log(run: Run, position: Position, window: Window, stragglers: Stragglers) -> Position:
    """Fetch what a window of steps says and write it down; refuse to go on after several that are not finite."""
    row = window.means()
    finite = torch.stack([each.finite for each in window.updated]).tolist()
    seconds = time.perf_counter() - window.started
    alone = gather_rows(torch.tensor([window.alone()]), [1] * run.parallel.world_size).tolist()
    samples = len(window.updated) * run.config.samples_per_step
    told = {
        "step": position.step,
        "epoch": position.samples_seen / len(run.dataset),
        "samples_seen": position.samples_seen,
        "split": "train",
        **row,
        "learning_rate": window.updated[-1].learning_rate,
        "seconds": seconds,
        "samples_per_second": samples / seconds,
        "waiting": window.waited / seconds,
        "checkpointing": window.saved / seconds,
        "processes": run.parallel.world_size,
        "device": run.parallel.device_name(),
        "seconds_alone": alone,
    }
    run.monitor.log(told)
    run.monitor.say(stragglers.hear(alone))
    run.monitor.show(told, last=position.step == run.steps)
    for number, good in enumerate(finite):
        position = replace(position, bad_steps=0 if good else position.bad_steps + 1)
        if not good:
            step = position.step - len(finite) + number + 1
            rows = torch.cat(window.rows[number])
            rows = gather_rows(rows, gather_sizes(len(rows), CPU))
            run.monitor.log({"step": step, "split": "non-finite", "rows": rows.tolist()})
        if position.bad_steps >= run.config.stop_after_bad_steps:
            raise ChiasmaError(
                f"the loss or its gradient was not finite in {position.bad_steps} steps in a row; nothing was updated",
                where=f"step {position.step - len(finite) + number + 1}; rows of the cohort in metrics.jsonl under "
                "split 'non-finite'",
                fix="lower optimiser.learning_rate, or check these records; the last checkpoint is whole",
            )
    return position


def _save_and_evaluate(run: Run, position: Position, asked: int, watch: HangWatch) -> float:
    """Checkpoint and evaluate when it is time; seconds that training waited for the checkpoint."""
    config, seconds = run.config, 0.0
    last = asked or position.step == run.steps
    if last or position.step % config.checkpoint_every == 0:
        seconds = run.checkpoints.save(position, run.state)
    if config.evaluate_every and position.step % config.evaluate_every == 0 and not last:
        run.monitor.clear()
        with watch.paused(), run.state.updater.averaged():
            run.monitor.log({"step": position.step, "split": "held_out", **run.evaluate()})
    return seconds
