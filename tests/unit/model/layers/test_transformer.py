"""Attention and the block around it, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from foundation.errors import ConfigError
from foundation.model.layers.transformer import Attention, Block


def test_attention_is_the_textbook_one():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    x, real = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, False, True, True, False]])
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        query, key, value = (f(x)[..., part] for f in (attention.query, attention.key, attention.value))
        score = query @ key.transpose(1, 2) / 4**0.5
        heads.append(functional.softmax(score.masked_fill(~real[:, None], -torch.inf), dim=-1) @ value)
    assert torch.allclose(attention(x, real), attention.out(torch.cat(heads, dim=-1)), atol=1e-6)


def test_a_block_adds_each_half_to_what_it_was_given():
    torch.manual_seed(0)
    block = Block(8, 2, 1.5, dropout=0.0)
    x, real = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    half = x + block.attention(functional.layer_norm(x, (8,)), real)
    expected = half + block.down(functional.gelu(block.up(functional.layer_norm(half, (8,)))))
    assert torch.allclose(block(x, real), expected, atol=1e-6)
    assert block.up.out_features == 12


def test_dropout_acts_on_what_each_half_adds():
    torch.manual_seed(0)
    block = Block(64, 2, 1.0, dropout=0.5)
    x, real = torch.randn(1, 50, 64), torch.ones(1, 50, dtype=torch.bool)
    unchanged = (block(x, real) == x).float().mean()
    # Both halves drop an entry with probability one half each: 5 standard deviations of 3,200.
    assert abs(unchanged - 0.25) < 5 * (0.25 * 0.75 / 3200) ** 0.5


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match="3 heads do not divide a width of 8"):
        Attention(8, 3)
