"""The training loop of one adapted model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.config import FitConfig
from finetune.methods.adapted import EVERYTHING, Adapted
from finetune.methods.heads import Head
from finetune.tasks.base import Task
from foundation.collectives import world_size
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import PatientOrder
from foundation.errors import ChiasmaError
from foundation.training.parallel.replicated import Replicated
from foundation.training.update import Updated, Updater


@dataclass(frozen=True)
class Trainee:
    """A model that is trained for tasks.

    Attributes:
        adapted: The model, with a head for every task.
        tasks: By name, fitted on the training patients.
        weights: Task to the weight of its loss.
        taught_by: Tasks that the model learns from; heads of others follow what it becomes.
    """

    adapted: Adapted
    tasks: dict[str, Task]
    weights: Mapping[str, float]
    taught_by: Collection[str]

    def train(self, mode: bool = True) -> None:
        """Training or evaluation, of the model and of its tasks."""
        self.adapted.train(mode)
        for task in self.tasks.values():
            task.train(mode)

    def loss(self, batch: Batch, seed: int) -> Tensor:
        """The sum over tasks of what their heads began at the lowest of."""
        x_BE = self.adapted.inputs(batch, seed=seed)[EVERYTHING]
        losses = []
        for name, task in self.tasks.items():
            head = self.adapted.heads[name]
            assert isinstance(head, Head)
            outputs = head(x_BE if name in self.taught_by else x_BE.detach())
            loss = task.loss(outputs, batch.endpoints, batch.groups) + head.ridge() / world_size()
            losses.append(self.weights[name] * loss)
        return torch.stack(losses).sum()


def fit(
    trainee: Trainee,
    data: CohortDataset,
    config: FitConfig,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train for a number of epochs; what is trained is then at its average, if there is one.

    Args:
        trainee: Changed in place.
        data: Training records, with modality dropout.
        config: Of the whole training, whose learning rate falls towards `config.epochs`.
        epochs: After how many to stop.
        seed: Of the order of patients and of dropout.
        after_epoch: Called with the number of epochs, while the model is at its average and in evaluation.

    Returns:
        What metrics.jsonl says of every step.

    Raises:
        ChiasmaError: A loss or gradient was not finite.
    """
    parallel = Replicated(device=next(trainee.adapted.parameters()).device)
    updater = Updater(trainee.adapted, config.optimiser, parallel, config.ema)
    each = math.ceil(len(data) / config.batch_size)
    order = PatientOrder(data.rows, config.batch_size, seed=seed, batches=each * epochs)
    steps: list[_Step] = []
    trainee.train()
    for step, batch in enumerate(load(data, order)):
        began, batch = time.perf_counter(), batch.to(parallel.device)
        loss = trainee.loss(batch, seed)
        updated = updater.update([loss], step, each * config.epochs)
        steps.append(_Step(loss.detach(), updated, time.perf_counter() - began))
        if (step + 1) % each == 0:
            _refuse_non_finite(steps)
            if after_epoch is not None:
                with updater.averaged():
                    trainee.train(False)
                    after_epoch((step + 1) // each)
                trainee.train()
    if updater.average is not None:
        updater.average.settle()
    return [_row(number, number / each, config.batch_size, step) for number, step in enumerate(steps, start=1)]


@dataclass(frozen=True)
class _Step:
    """What there is to say of a step; tensors stay on their device until the end of the epoch."""

    loss: Tensor
    updated: Updated
    seconds: float


def _row(step: int, epoch: float, size: int, done: _Step) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": round(epoch, 6),
        "samples_seen": step * size,
        "split": "train",
        "loss": done.loss.item(),
        "gradient_norm": done.updated.gradient_norm.item(),
        "learning_rate": done.updated.learning_rate,
        "samples_per_second": size / done.seconds,
    }


def _refuse_non_finite(steps: Sequence[_Step]) -> None:
    bad = (~torch.stack([step.updated.finite for step in steps])).nonzero().flatten().tolist()
    if bad:
        raise ChiasmaError(
            "the loss or its gradient was not finite; this fold was given up",
            where=f"step {bad[0] + 1} of its training",
            fix="lower fit.optimiser.learning_rate, and those of search.learning_rate",
        )
