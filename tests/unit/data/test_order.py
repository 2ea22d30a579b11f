"""The shuffle in blocks: a permutation of (seed, epoch) alone that opens few shards at a time, and how it mixes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.data.order import Blocks, OrderConfig, measure_mixing
from foundation.data.sampler import PatientOrder

SHARDS = np.repeat(np.arange(200), 16)


def opened_at_once(order):
    """Shards that were read already and will be read again, at each place of an epoch."""
    shards = SHARDS[order]
    first, last = (np.full(200, -1), np.full(200, -1))
    for place, shard in enumerate(shards.tolist()):
        first[shard] = place if first[shard] < 0 else first[shard]
        last[shard] = place
    return np.array([((first <= place) & (place <= last)).sum() for place in range(len(shards))])


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    open_shards=st.integers(1, 20),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_every_record_comes_once_and_the_order_is_that_of_seed_and_epoch(sizes, open_shards, seed, epoch):
    shard_of = np.repeat(np.arange(len(sizes)) * 3, sizes)
    order = Blocks(shard_of, open_shards)(seed, epoch)
    assert sorted(order.tolist()) == list(range(len(shard_of)))
    assert np.array_equal(order, Blocks(shard_of, open_shards)(seed, epoch))


def test_epochs_and_seeds_differ():
    blocks = Blocks(SHARDS, 8)
    orders = [blocks(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_few_shards_are_open_at_a_time_and_each_is_read_about_once():
    order = Blocks(SHARDS, 8)(3, 1)
    shards = SHARDS[order]
    read = 0
    last = np.full(200, -(10**9))
    for place, shard in enumerate(shards.tolist()):
        read += place - last[shard] > 8 * 16 * 3
        last[shard] = place
    assert 200 <= read <= 200 + 8, "only those open at the end are read again at the beginning"
    inside = opened_at_once(order)
    wrapped = 8
    assert np.median(inside) <= 8 + wrapped + 2


def test_with_all_shards_open_it_is_a_full_shuffle():
    few = np.repeat(np.arange(4), 50)
    order = Blocks(few, 10)(0, 0)
    mixing = measure_mixing(few, order, 32)
    assert mixing.shards == pytest.approx(4, abs=0.01)
    assert abs(mixing.correlation) < 0.2


def test_mixing_says_from_how_many_shards_a_batch_comes():
    one_by_one = measure_mixing(SHARDS, np.arange(len(SHARDS)), 32)
    assert one_by_one.shards == pytest.approx(2)
    assert one_by_one.correlation > 0.99
    full = measure_mixing(SHARDS, np.random.default_rng(0).permutation(len(SHARDS)), 32)
    assert full.shards == pytest.approx(full.of_full, rel=0.02)
    assert abs(full.correlation) < 0.06
    epochs = [measure_mixing(SHARDS, Blocks(SHARDS, 16)(0, epoch), 32) for epoch in range(20)]
    expected = 16 * (1 - (1 - 1 / 16) ** 32)
    assert np.mean([blocks.shards for blocks in epochs]) == pytest.approx(expected, rel=0.1)
    assert np.mean([blocks.correlation for blocks in epochs]) == pytest.approx(1 / 16, abs=0.02)
    assert f"{epochs[0].shards:.1f} shards" in epochs[0].sentence()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_and_resuming_change_nothing(world_size):
    rows = np.arange(0, 3200, 2)
    shuffle = OrderConfig(shuffle="blocks", open_shards=4).build(SHARDS[rows])
    whole = [key.rows for key in PatientOrder(rows, 24, seed=1, batches=80, shuffle=shuffle)]
    orders = [
        PatientOrder(rows, 24, seed=1, batches=40, samples_seen=960, rank=r, world_size=world_size, shuffle=shuffle)
        for r in range(world_size)
    ]
    for batch, pieces in zip(whole[40:], zip(*orders, strict=True), strict=True):
        assert np.concatenate([piece.rows for piece in pieces]).tolist() == batch.tolist()
    first_epoch = np.concatenate(whole)[: len(rows)]
    assert sorted(first_epoch.tolist()) == rows.tolist()


def test_a_full_shuffle_is_what_it_always_was():
    assert OrderConfig(shuffle="full").build(SHARDS) is None
