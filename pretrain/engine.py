"""The training loop: batches in, steps, checkpoints; stopped anywhere and started again, it gives the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import PatientOrder
from foundation.errors import ChiasmaError
from foundation.training import checkpoint
from foundation.training.checkpoint import Position, State
from foundation.training.optimiser import gradient_norm, learning_rate, set_learning_rate
from pretrain.config import PretrainConfig
from pretrain.monitor import Monitor


@dataclass
class Run:
    """Everything a training loop needs."""

    config: PretrainConfig
    folder: Path
    steps: int
    dataset: CohortDataset
    state: State
    accelerator: Accelerator
    monitor: Monitor
    evaluate: Callable[[], dict[str, Any]]


def train(run: Run, position: Position) -> Position:
    """Train from a position to the end.

    Raises:
        ChiasmaError: Too many steps in a row were not finite.
    """
    config, module, optimiser, average = run.config, run.state.module, run.state.optimiser, run.state.average
    batches = _batches(run, position)
    module.train()
    while position.step < run.steps:
        started = time.perf_counter()
        rate = learning_rate(config.optimiser, position.step, run.steps)
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad(set_to_none=True)
        logged, rows, waited = _add_gradients(run, batches)
        norm = gradient_norm(module.parameters(), config.optimiser.clip)
        finite = bool(torch.isfinite(logged["loss"]) & torch.isfinite(norm))
        if finite:
            optimiser.step()
            if average is not None:
                average.update_parameters(module)
        position = _advance(position, config.samples_per_step, finite)
        seconds = time.perf_counter() - started
        row = {
            "step": position.step,
            "epoch": position.samples_seen / len(run.dataset),
            "samples_seen": position.samples_seen,
            "split": "train",
            **logged,
            "gradient_norm": norm,
            "learning_rate": rate,
            "seconds": seconds,
            "samples_per_second": config.samples_per_step / seconds,
            "waiting": waited / seconds,
        }
        run.monitor.log(row)
        run.monitor.show(row, last=position.step == run.steps)
        _refuse_bad_steps(run, position, rows, finite)
        _look_up_from_work(run, position)
    return position


def _batches(run: Run, position: Position) -> Iterator[Batch]:
    order = PatientOrder(
        run.dataset.rows,
        run.config.batch_size,
        seed=run.config.seed,
        samples_seen=position.samples_seen,
        batches=(run.steps - position.step) * run.config.accumulate,
    )
    pin_memory = run.accelerator.device.type == "cuda"
    loader = load(run.dataset, order, workers=run.config.workers, pin_memory=pin_memory)
    for batch in loader:
        run.dataset.note(batch.quarantined)
        yield batch


def _add_gradients(run: Run, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], list[Tensor], float]:
    """Give the parameters the mean gradient of the batches of one step.

    Returns:
        The means of what the batches log, the rows of each, and the seconds that were spent waiting for them.
    """
    config, share = run.config, 1 / run.config.accumulate
    logged: dict[str, Tensor] = {}
    rows, waited = [], 0.0
    for _ in range(config.accumulate):
        asked = time.perf_counter()
        batch = next(batches).to(run.accelerator.device, non_blocking=True)
        waited += time.perf_counter() - asked
        with run.accelerator.autocast():
            found = run.state.module.backward(batch, config.chunk_size, share)
        logged = {name: logged.get(name, 0) + share * value for name, value in found.items()}
        rows.append(batch.rows)
    return logged, rows, waited


def _advance(position: Position, samples: int, finite: bool) -> Position:
    return replace(
        position,
        step=position.step + 1,
        samples_seen=position.samples_seen + samples,
        bad_steps=0 if finite else position.bad_steps + 1,
    )


def _refuse_bad_steps(run: Run, position: Position, rows: Sequence[Tensor], finite: bool) -> None:
    """A step whose loss or gradient was not finite has updated nothing; record whose it was, and stop after several."""
    if finite:
        return
    run.monitor.log({"step": position.step, "split": "non-finite", "rows": torch.cat(list(rows)).tolist()})
    if position.bad_steps >= run.config.stop_after_bad_steps:
        raise ChiasmaError(
            f"the loss or its gradient was not finite in {position.bad_steps} steps in a row; nothing was updated",
            where=f"step {position.step}; rows of the cohort in metrics.jsonl under split 'non-finite'",
            fix="lower optimiser.learning_rate, or look at these records; the last checkpoint is whole",
        )


def _look_up_from_work(run: Run, position: Position) -> None:
    """Checkpoint and evaluate when it is time."""
    config = run.config
    if position.step % config.checkpoint_every == 0 or position.step == run.steps:
        checkpoint.save(run.folder / "checkpoints", position, run.state, keep=config.keep_checkpoints)
    if config.evaluate_every and position.step % config.evaluate_every == 0 and position.step < run.steps:
        run.monitor.clear()
        run.monitor.log({"step": position.step, "split": "held_out", **run.evaluate()})
