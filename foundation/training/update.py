"""One update of parameters, the same for every training loop: zero, backward, sum, clip, step, average."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foundation.training.ema import Average
from foundation.training.optimiser import OptimiserConfig, build_optimiser, learning_rate, set_learning_rate
from foundation.training.parallel.base import Parallel


@dataclass(frozen=True)
class Updated:
    """What came of an update; tensors stay on their device until somebody logs them.

    Attributes:
        gradient_norm: Scalar, before clipping.
        finite: Scalar bool, the same on every process; where it is False nothing was updated anywhere.
        learning_rate: Of this step.
    """

    gradient_norm: Tensor
    finite: Tensor
    learning_rate: float


class Updater:
    """Updates the trained parameters of a module.

    Args:
        module: Whose parameters are trained.
        config: Of the optimiser.
        parallel: How processes share the work.
        ema: Decay of a moving average of what is trained; None for none.
    """

    def __init__(self, module: nn.Module, config: OptimiserConfig, parallel: Parallel, ema: float | None) -> None:
        self.module = module
        self.config = config
        self.parallel = parallel
        parallel.deal(module)
        self.optimiser = build_optimiser(module, config)
        parallel.take_over(module, self.optimiser, config.clip)
        self.average = None if ema is None else Average(module, ema, parallel)

    def update(self, losses: Iterable[Tensor], step: int, steps: int) -> Updated:
        """Make one update.

        Nothing is fetched from the device: whether all is finite is decided there, and the optimiser and the average
        leave everything as it is where it is not.

        Args:
            losses: Scalars whose gradients add up, each made when its turn comes.
            step: Counted from 0, for the learning rate.
            steps: Of the whole run.
        """
        rate = learning_rate(self.config, step, steps)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.parallel.device)
        for loss in losses:
            self.parallel.backward(loss)
            total = total + loss.detach()
        norm, finite = self.parallel.step(self.optimiser, total, self.config.clip)
        if self.average is not None:
            self.average.update(finite)
        return Updated(norm.detach(), finite, rate)

    def averaged(self) -> AbstractContextManager[Any]:
        """While this lasts, parameters are at their average, if there is one."""
        return nullcontext() if self.average is None else self.average.shown()
