"""The strategy `ddp`: every process holds the whole model, and gradients are summed once per step."""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.training.parallel.base import Parallel, step_where_finite, sum_gradients, trained


class Replicated(Parallel):
    """Distributed data parallel; of one process it is plain training."""

    def step(self, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Sum gradients, clip them, step; see `Parallel.step`."""
        parameters = trained(optimiser)
        sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
        return norm, step_where_finite(optimiser, norm, loss)
