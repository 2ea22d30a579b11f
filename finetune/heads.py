"""Heads on the fused embedding, which start where they are best on the embeddings of the model as it is.

A head that starts at random pulls the model about before it knows where to; one that is fitted first does not
(Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from finetune.task import Task

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Half the weight of the squared weights beside the mean loss of a patient or event; the most cautious first."""

STEPS = 60


class Head(nn.Module):
    """A task's head behind a centred embedding of unit variance.

    Args:
        inner: The task's own.
        width: D of the embedding.
    """

    center_D: Tensor
    scale: Tensor

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("center_D", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, z_BD: Tensor) -> Tensor:
        """Outputs of the task."""
        return self.inner((z_BD - self.center_D) / self.scale)


def start_head(
    head: Head,
    task: Task,
    z_ND: Tensor,
    endpoints: Mapping[str, Mapping[str, Tensor]],
    groups: Sequence[str],
    penalty: float,
) -> None:
    """Center a head on embeddings and fit it to them, by the task's own loss and a ridge penalty.

    Args:
        head: Changed in place, from wherever it is.
        task: Fitted on the same patients.
        z_ND: Embeddings of training records.
        endpoints: Of the same records.
        groups: [N] names.
        penalty: See `PENALTIES`.
    """
    head.center_D.copy_(z_ND.mean(dim=0))
    head.scale.copy_(z_ND.std(dim=0, correction=0).square().mean().sqrt().clamp(min=1e-6))
    weights = [parameter for name, parameter in head.named_parameters() if name.endswith("weight")]
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")
    task.eval()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = task.loss(head(z_ND), endpoints, groups)
        total = loss + penalty / 2 * torch.stack([weight.square().sum() for weight in weights]).sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(closure)
    optimiser.zero_grad(set_to_none=True)
