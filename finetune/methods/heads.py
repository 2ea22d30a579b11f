"""Heads on the fused embedding, whose initial weights are the ridge fit to the model before training.

A head that starts at random pulls the model about before it knows where to; one that is fitted first does not
(Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from finetune.tasks.base import Task

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Of half the squared weights, beside the mean loss of a patient or event; the most cautious first."""

STEPS = 60

FLAT = 1e-8
"""A gradient or a step that is no more than this ends the fit."""

LEAST_SPREAD = 1e-6


class Head(nn.Module):
    """A task's head behind inputs about 0 and of unit variance.

    Args:
        task: Makes the inner head.
        width: D of the embedding.
        covariates: E, how many values it reads beside the embedding.
    """

    center_E: Tensor
    scale_E: Tensor

    def __init__(self, task: Task, width: int, covariates: int = 0) -> None:
        super().__init__()
        self.width = width
        self.inner = task.head(width + covariates)
        self.register_buffer("center_E", torch.zeros(width + covariates))
        self.register_buffer("scale_E", torch.ones(width + covariates))

    def forward(self, x_BE: Tensor) -> Tensor:
        """Outputs of the task, for embeddings with the covariates behind them."""
        return self.inner((x_BE - self.center_E) / self.scale_E)

    def center(self, x_NE: Tensor) -> None:
        """Learn center and scale: one scale for all of the embedding, and one for each covariate."""
        spread_E = x_NE.std(dim=0, correction=0)
        spread_E[: self.width] = spread_E[: self.width].square().mean().sqrt()
        self.center_E.copy_(x_NE.mean(dim=0))
        self.scale_E.copy_(torch.where(spread_E > LEAST_SPREAD, spread_E, 1.0))

    def ridge(self) -> Tensor:
        """Half the sum of squared weights."""
        weights = [parameter for name, parameter in self.named_parameters() if name.endswith("weight")]
        return torch.stack([weight.square().sum() for weight in weights]).sum() / 2


def init_head(
    head: Head,
    task: Task,
    x_NE: Tensor,
    endpoints: Mapping[str, Mapping[str, Tensor]],
    groups: Sequence[str],
    penalty: float,
) -> None:
    """Center a head on its inputs and fit it to them, by the task's own loss and a ridge penalty.

    Args:
        head: Changed in place, from wherever it is.
        task: Fitted on the same patients.
        x_NE: Of training records: embeddings, with the covariates behind them.
        endpoints: Of the same records.
        groups: [N] names.
        penalty: See `PENALTIES`.
    """
    head.center(x_NE)
    optimiser = torch.optim.LBFGS(
        head.parameters(),
        max_iter=STEPS,
        tolerance_grad=1e-6,
        tolerance_change=FLAT,
        line_search_fn="strong_wolfe",
    )
    task.eval()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = task.loss(head(x_NE), endpoints, groups)
        total = loss + penalty * head.ridge()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(closure)
    optimiser.zero_grad(set_to_none=True)
