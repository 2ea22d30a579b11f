"""Values where they are kept."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(values: Tensor, keep: Tensor) -> Tensor:
    """`values` where `keep`, else zero; NaN in a place that is not kept reaches neither output nor gradient."""
    return torch.where(keep, values, torch.zeros((), dtype=values.dtype, device=values.device))
