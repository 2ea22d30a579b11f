"""A learned positive scale with a bound: the inverse temperature of a contrast."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LearnedScale(nn.Module):
    """A learned positive scale with a bound, the inverse of a temperature.

    At the bound the gradient that would push further is dropped and the one that leads back is kept, so that the
    scale cannot get stuck, as it can behind a clamp.

    Args:
        start: The scale to start from.
        highest: The largest scale; the smallest is 1.
    """

    def __init__(self, start: float, highest: float) -> None:
        super().__init__()
        # One dimension, as what is sharded or gathered by dimension cannot be a scalar.
        self.logarithm = nn.Parameter(torch.tensor([math.log(start)]))
        self._highest = math.log(highest)

    def forward(self) -> Tensor:
        """Scalar."""
        return _Bounded.apply(self.logarithm[0], 0.0, self._highest).exp()


class _Bounded(torch.autograd.Function):
    """A clamp whose gradient vanishes only where a step against it would lead further out."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.at_low, ctx.at_high = value <= low, value >= high
        return value.clamp(low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (gradient,) = grad_outputs
        outwards = (ctx.at_high & (gradient < 0)) | (ctx.at_low & (gradient > 0))
        return gradient.masked_fill(outwards, 0.0), None, None
