"""Which tokens run together: the real ones of each record, as many sequences as keep each below a cap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Packing:
    """Sequences of tokens; V counts them.

    Attributes:
        rows_V: [V] int64, ascending, the record that each is of; each record has at least one.
        index_VT: [V, T] int64, positions among the possible tokens; 0 <= index < S also where not real.
        real_VT: Bool; False is padding.
    """

    rows_V: Tensor
    index_VT: Tensor
    real_VT: Tensor


def pack(real_BS: Tensor, cap: int, draws_BS: Tensor | None = None) -> Packing:
    """Pack real tokens, in the order of their positions.

    Args:
        real_BS: Bool, the tokens there are.
        cap: Most tokens of a sequence.
        draws_BS: Uniform numbers in [0, 1); of a record with more than `cap` tokens those with the lowest numbers
            are kept. Without them all are kept, and such a record gets several sequences, into which its tokens
            are dealt in turn; a function of that record alone.
    """
    tokens = real_BS.shape[1]
    if draws_BS is not None and tokens > cap:
        # Above every draw, so that real tokens come first.
        lowest = torch.where(real_BS, draws_BS, 2.0).topk(cap, dim=1, largest=False, sorted=False).indices
        real_BS = torch.zeros_like(real_BS).scatter(1, lowest, True) & real_BS
    count_B = real_BS.sum(dim=1)
    order_BS = torch.argsort(real_BS.to(torch.int8), dim=1, descending=True, stable=True)
    sequences_B = torch.clamp((count_B + cap - 1) // cap, min=1)
    rows_V = torch.repeat_interleave(sequences_B)
    first_B = sequences_B.cumsum(0) - sequences_B
    number_V = torch.arange(len(rows_V), device=rows_V.device) - first_B[rows_V]
    longest = int(torch.clamp((count_B + sequences_B - 1) // sequences_B, min=1).max())
    place_VT = number_V[:, None] + torch.arange(longest, device=rows_V.device) * sequences_B[rows_V, None]
    index_VT = order_BS[rows_V[:, None], place_VT.clamp(max=tokens - 1)]
    return Packing(rows_V, index_VT, place_VT < count_B[rows_V, None])
