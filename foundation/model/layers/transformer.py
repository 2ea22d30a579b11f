"""A pre-norm transformer block on torch's scaled dot-product attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from foundation.errors import ConfigError

INITIAL_SCALE = 0.02


class SmallLinear(nn.Linear):
    """A linear map that starts small, so that a block starts near the identity and its tokens keep what they say."""

    def reset_parameters(self) -> None:
        """Start."""
        nn.init.trunc_normal_(self.weight, std=INITIAL_SCALE)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Attention(nn.Module):
    """Multi-head self-attention whose four projections are separate, so that adapters can be put on each.

    Args:
        width: D.
        heads: H; divides D.

    Raises:
        ConfigError: It does not.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide a width of {width}", fix="choose another number of heads")
        self.heads = heads
        self.query = SmallLinear(width, width)
        self.key = SmallLinear(width, width)
        self.value = SmallLinear(width, width)
        self.out = SmallLinear(width, width)

    def forward(self, x_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """Mix tokens.

        Args:
            x_BTD: Tokens; finite also where not real.
            real_BT: Bool, tokens that may be attended to; at least one per record.

        Returns:
            [B, T, D].
        """
        query, key, value = (
            project(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=real_BT[:, None, None, :])
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two linear layers on each token, each added to what it was given.

    Args:
        width: D.
        heads: H; divides D.
        mlp_ratio: Width of the hidden layer in units of D.
        dropout: Of what each half adds.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = SmallLinear(width, hidden)
        self.down = SmallLinear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]; a token that is not real changes no other token."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), real_BT))
        hidden = functional.gelu(self.up(self.mlp_norm(x_BTD)))
        return x_BTD + self.dropout(self.down(hidden))
