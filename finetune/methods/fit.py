"""Training of one adapted model: the loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.config import FitConfig
from finetune.methods.adapt import Adapted
from finetune.methods.heads import Head
from finetune.tasks.base import Task
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import PatientOrder
from foundation.errors import ChiasmaError
from foundation.training.ema import decay_of
from foundation.training.optimiser import build_optimiser, gradient_norm, learning_rate, set_learning_rate


@dataclass(frozen=True)
class Trainee:
    """A model that is trained for tasks.

    Attributes:
        adapted: The model, with a head for every task.
        tasks: By name, fitted on the training patients.
        weights: Task to the weight of its loss.
        penalties: Task to the ridge penalty of its head.
    """

    adapted: Adapted
    tasks: dict[str, Task]
    weights: dict[str, float]
    penalties: dict[str, float]

    def train(self, mode: bool = True) -> None:
        """Training or evaluation, of the model and of its tasks."""
        self.adapted.train(mode)
        for task in self.tasks.values():
            task.train(mode)


def fit(
    trainee: Trainee,
    data: CohortDataset,
    config: FitConfig,
    *,
    epochs: int,
    seed: int,
    look: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train for a number of epochs; what is trained is then at its average, if there is one.

    Args:
        trainee: Changed in place.
        data: Training records, with modality dropout.
        config: Of the whole training, whose learning rate falls towards `config.epochs`.
        epochs: After how many to stop.
        seed: Of the order of patients and of dropout.
        look: Called after every epoch with their number, while the model is at its average.

    Returns:
        What metrics.jsonl says of every step.

    Raises:
        ChiasmaError: A loss or gradient was not finite.
    """
    adapted = trainee.adapted
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = build_optimiser(adapted, config.optimiser)
    average = Average(trained, config.ema)
    each = math.ceil(len(data) / config.batch_size)
    order = PatientOrder(data.rows, config.batch_size, seed=seed, batches=each * epochs)
    device = trained[0].device
    rows = []
    trainee.train()
    for step, batch in enumerate(load(data, order), start=1):
        began, batch = time.perf_counter(), batch.to(device)
        rate = learning_rate(config.optimiser, step - 1, each * config.epochs)
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad(set_to_none=True)
        outputs = adapted(batch, seed=seed)
        loss = _loss(trainee, outputs, batch)
        loss.backward()
        norm = gradient_norm(trained, config.optimiser.clip)
        _refuse_non_finite(loss, norm, step)
        optimiser.step()
        average.update()
        rows.append(_row(step, step / each, config.batch_size, loss, norm, rate, time.perf_counter() - began))
        if look is not None and step % each == 0:
            with average.shown():
                look(step // each)
            trainee.train()
    average.settle()
    return rows


def _row(step: int, epoch: float, size: int, loss: Tensor, norm: Tensor, rate: float, seconds: float) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": round(epoch, 6),
        "samples_seen": step * size,
        "split": "train",
        "loss": loss.item(),
        "gradient_norm": norm.item(),
        "learning_rate": rate,
        "samples_per_second": round(size / seconds, 2),
    }


def _loss(trainee: Trainee, outputs: Mapping[str, Any], batch: Any) -> Tensor:
    """The sum over tasks of what their heads started at the lowest of."""
    losses = []
    for name, task in trainee.tasks.items():
        head = trainee.adapted.heads[name]
        assert isinstance(head, Head)
        loss = task.loss(outputs[name], batch.endpoints, batch.groups) + trainee.penalties[name] * head.ridge()
        losses.append(trainee.weights[name] * loss)
    return torch.stack(losses).sum()


def _refuse_non_finite(loss: Tensor, norm: Tensor, step: int) -> None:
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        raise ChiasmaError(
            "the loss or its gradient was not finite; this fold was given up",
            where=f"step {step} of its training",
            fix="lower fit.optimiser.learning_rate, and those of search.learning_rate",
        )


class Average:
    """A moving average of parameters, in place of the parameters for as long as one looks.

    Args:
        parameters: That are trained.
        decay: Of the average; None for the parameters as they are.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float | None) -> None:
        self.parameters = parameters
        self.decay = decay
        self.updates = 0
        self.averaged = [] if decay is None else [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the parameters."""
        if self.decay is not None:
            share = 1 - decay_of(self.updates, self.decay)
            torch._foreach_lerp_(self.averaged, self.parameters, share)  # type: ignore[reportPrivateImportUsage]
            self.updates += 1

    @contextmanager
    def shown(self):
        """While this lasts, the parameters are at their average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def settle(self) -> None:
        """Leave the parameters at their average."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, averaged in zip(self.parameters, self.averaged, strict=False):
            kept = parameter.detach().clone()
            parameter.copy_(averaged)
            averaged.copy_(kept)
