"""Attention pooling: a learned query attends to tokens and sums them up in one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from foundation.errors import ConfigError


class AttentionPool(nn.Module):
    """One vector from any number of tokens.

    Args:
        width: D.
        heads: H; divides D.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"{heads} attention heads do not divide a width of {width}", fix="choose a number of heads that does"
            )
        self.heads = heads
        self.seed_D = nn.Parameter(torch.empty(width))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # A bias on the keys moves every score alike, so softmax would never let it learn.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.normal_(self.seed_D)

    def forward(self, x_BTD: Tensor, real_BT: Tensor | None = None) -> Tensor:
        """Pool tokens.

        Args:
            x_BTD: Tokens; anything where not real.
            real_BT: Bool; None where all are.

        Returns:
            [B, D]; zeros for a row without any real token.
        """
        if real_BT is not None:
            x_BTD = torch.where(real_BT[..., None], x_BTD, 0.0)
        x_BTD = self.norm(x_BTD)
        query_BH1D = self._split(self.query(self.seed_D).expand(len(x_BTD), 1, -1))
        key_BHTD, value_BHTD = self._split(self.key(x_BTD)), self._split(self.value(x_BTD))
        if real_BT is None:
            pooled = scaled_dot_product_attention(query_BH1D, key_BHTD, value_BHTD)
            return self.out(pooled.transpose(1, 2).flatten(1))
        some_B1 = real_BT.any(dim=1, keepdim=True)
        # Softmax over nothing is NaN; a row with nothing attends to everything, and the result is dropped.
        seen_B11T = (real_BT | ~some_B1)[:, None, None, :]
        pooled = scaled_dot_product_attention(query_BH1D, key_BHTD, value_BHTD, attn_mask=seen_B11T)
        return torch.where(some_B1, self.out(pooled.transpose(1, 2).flatten(1)), 0.0)

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
