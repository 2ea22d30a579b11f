"""An exponential moving average of the weights, which follows closely at first and smooths more and more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def follow(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of a module, its `module`, that averages the parameters whenever `update_parameters` is called.

    The first update copies. Update n after it keeps a share ``(1 + n) / (10 + n)`` of the average, until that reaches
    `decay`: so the average looks back on about a tenth of the updates, and the start does not rule a short run.
    Buffers are those of the module.

    Args:
        module: What to follow.
        decay: In the long run; the average then looks back on about 1 / (1 - decay) updates.
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, updates: Tensor | int) -> None:
        share = 1 - decay_of(int(updates), decay)
        torch._foreach_lerp_(averaged, current, share)  # type: ignore[reportPrivateImportUsage]

    return AveragedModel(module, multi_avg_fn=update).requires_grad_(False).eval()


def decay_of(update: int, decay: float) -> float:
    """What an update keeps of the average that there was."""
    return min(decay, (1 + update) / (10 + update))
