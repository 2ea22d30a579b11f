"""Which tokens run together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.model.layers.packing import pack


def sequences(packing):
    """For each record the lists of positions of its sequences."""
    found = {}
    for row, index, real in zip(
        packing.rows_V.tolist(), packing.index_VT.tolist(), packing.real_VT.tolist(), strict=True
    ):
        found.setdefault(row, []).append([i for i, here in zip(index, real, strict=True) if here])
    return found


masks = st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 1))


def mask_of(records, tokens, seed, share):
    return torch.tensor(np.random.default_rng(seed).random((records, tokens)) < share)


@settings(max_examples=60)
@given(masks, st.integers(1, 14))
def test_without_draws_every_token_is_dealt_into_as_few_sequences_as_the_cap_allows(shape, cap):
    real = mask_of(*shape)
    packing = pack(real, cap)
    found = sequences(packing)
    assert list(found) == list(range(len(real)))
    for row, mask in enumerate(real.tolist()):
        there = [i for i, here in enumerate(mask) if here]
        count = max(-(-len(there) // cap), 1)
        assert found[row] == [there[part::count] for part in range(count)]
    assert packing.index_VT.min() >= 0 and packing.index_VT.max() < real.shape[1]
    assert packing.real_VT.shape[1] == max(max(len(s) for parts in found.values() for s in parts), 1)


@settings(max_examples=60)
@given(masks, st.integers(1, 14))
def test_with_draws_the_lowest_real_ones_are_kept(shape, cap):
    real = mask_of(*shape)
    draws = torch.tensor(np.random.default_rng(shape[2] + 1).random(real.shape))
    found = sequences(pack(real, cap, draws))
    for row in range(len(real)):
        there = sorted((draws[row, i].item(), i) for i in range(real.shape[1]) if real[row, i])
        assert found[row] == [sorted(i for _, i in there[:cap])]


@pytest.mark.parametrize("draws", [None, torch.rand(3, 10, generator=torch.Generator().manual_seed(0))])
def test_a_record_is_packed_the_same_whoever_else_is_there(draws):
    real = torch.zeros(3, 10, dtype=torch.bool)
    real[0], real[1, 3:8] = True, True
    together = sequences(pack(real, 4, draws))
    for row in range(3):
        alone = pack(real[row : row + 1], 4, None if draws is None else draws[row : row + 1])
        assert sequences(alone)[0] == together[row]


def test_every_token_is_equally_likely_to_be_kept():
    draws = torch.rand(4000, 10, generator=torch.Generator().manual_seed(0))
    packing = pack(torch.ones(4000, 10, dtype=torch.bool), 3, draws)
    share = torch.bincount(packing.index_VT[packing.real_VT], minlength=10) / 4000
    # 5 standard deviations of a share of 0.3 in 4,000.
    assert (share - 0.3).abs().max() < 5 * (0.3 * 0.7 / 4000) ** 0.5
