"""Values where they are kept, and in a precision that losses can be computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(values: Tensor, keep: Tensor) -> Tensor:
    """`values` where `keep`, else zero; NaN in a place that is not kept reaches neither output nor gradient."""
    return torch.where(keep, values, torch.zeros((), dtype=values.dtype, device=values.device))


def at_least_single(values: Tensor) -> Tensor:
    """Values in single precision or, where they are already, in double."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
