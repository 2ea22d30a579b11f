"""Each stratum has its share of every batch; the order is one of the seed alone, for any ranks and any resumption."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.data.order import Blocks
from foundation.data.sampler import PatientOrder
from foundation.data.strata import StratifiedOrder, Stratum, dealt, drawn, order_of


@st.composite
def strata(draw: st.DrawFn) -> list[Stratum]:
    """Two to six strata, pairs first, whose shares add up to one."""
    paired = draw(st.lists(st.integers(1, 12), min_size=0, max_size=3))
    others = draw(st.lists(st.integers(1, 40), min_size=2 - min(len(paired), 2), max_size=3))
    sizes = paired + others
    weights = draw(st.lists(st.integers(1, 999), min_size=len(sizes), max_size=len(sizes)))
    starts = np.concatenate([[0], np.cumsum(sizes)]) + 100
    return [
        Stratum(f"c{i}", i < len(paired), np.arange(starts[i], starts[i + 1]), Fraction(weights[i], sum(weights)))
        for i in range(len(sizes))
    ]


def stream(keys):
    rows = np.concatenate([key.rows for key in keys])
    return list(zip(rows.tolist(), np.concatenate([key.epochs for key in keys]).tolist(), strict=True))


def take(order, batches):
    return list(itertools.islice(iter(order), batches))


@given(strata=strata(), start=st.integers(0, 10**12), size=st.integers(1, 100))
def test_any_batch_anywhere_has_the_share_of_pairs_to_within_one_record(strata, start, size):
    stratum_of, _ = dealt(strata, np.arange(start, start + size))
    paired = sum(int((stratum_of == number).sum()) for number, s in enumerate(strata) if s.paired)
    asked = size * sum((s.share for s in strata if s.paired), Fraction(0))
    assert math.floor(asked) <= paired <= math.ceil(asked)
    for number, stratum in enumerate(strata):
        assert abs(int((stratum_of == number).sum()) - float(size * stratum.share)) < 3


@given(strata=strata(), start=st.integers(0, 10**12), size=st.integers(0, 100))
def test_samples_of_a_stratum_are_numbered_without_a_gap(strata, start, size):
    stratum_of, number = dealt(strata, np.arange(start, start + size))
    before, after = drawn(strata, start), drawn(strata, start + size)
    assert sum(before) == start and sum(after) == start + size
    for each in range(len(strata)):
        assert number[stratum_of == each].tolist() == list(range(before[each], after[each]))


@given(strata=strata(), seed=st.integers(0, 9), world_size=st.sampled_from([1, 2, 3, 4]), size=st.integers(4, 30))
def test_the_ranks_together_are_one_process(strata, seed, world_size, size):
    single = take(StratifiedOrder(strata, size, seed=seed), 5)
    ranks = [
        take(StratifiedOrder(strata, size, seed=seed, rank=r, world_size=world_size), 5) for r in range(world_size)
    ]
    for batch, pieces in zip(single, zip(*ranks, strict=True), strict=True):
        assert stream([batch]) == stream(pieces)


@given(
    strata=strata(), seed=st.integers(0, 9), size=st.integers(1, 30), other=st.integers(1, 30), steps=st.integers(0, 6)
)
def test_samples_seen_is_all_that_resuming_needs(strata, seed, size, other, steps):
    first = take(StratifiedOrder(strata, size, seed=seed), steps)
    rest = take(StratifiedOrder(strata, other, seed=seed, samples_seen=steps * size), 3)
    straight = stream(take(StratifiedOrder(strata, 1, seed=seed), steps * size + 3 * other))
    assert stream(first + rest) == straight


@given(strata=strata(), seed=st.integers(0, 9))
def test_a_stratum_is_passed_through_whole_again_and_again(strata, seed):
    drawn_rows = stream([StratifiedOrder(strata, 1, seed=seed).key(0, 300)])
    for stratum, count in zip(strata, drawn(strata, 300), strict=True):
        own = [(row, epoch) for row, epoch in drawn_rows if row in stratum.rows]
        assert len(own) == count
        assert [epoch for _, epoch in own] == [number // len(stratum.rows) for number in range(count)]
        for epoch in range(count // len(stratum.rows)):
            assert sorted(row for row, e in own if e == epoch) == stratum.rows.tolist()


def test_strata_of_one_size_are_not_permuted_alike():
    halves = [
        Stratum("a", True, np.arange(50), Fraction(1, 2)),
        Stratum("b", False, np.arange(50, 100), Fraction(1, 2)),
    ]
    rows = StratifiedOrder(halves, 10, seed=0).key(0, 100).rows
    assert (rows[rows < 50] != rows[rows >= 50] - 50).sum() > 40


def test_strata_may_be_shuffled_in_blocks():
    """One shard open: a stratum gives a shard whole before the next, and not in the order of the other's."""
    parts = [
        Stratum("a", True, np.arange(30), Fraction(1, 2)),
        Stratum("a", False, np.arange(30, 60), Fraction(1, 2)),
    ]

    def blocks(rows, purpose):
        return Blocks(rows // 5, 1, purpose)

    order = StratifiedOrder(parts, 12, seed=3, shuffle_of=blocks)
    rows = np.array([row for row, _ in stream(take(order, 5))])
    assert sorted(rows) == list(range(60))
    shards = [(own // 5).reshape(-1, 5) for own in (rows[rows < 30], rows[rows >= 30])]
    assert all((own == own[:, :1]).all() for own in shards)
    assert (shards[0] != shards[1] - 6).any()
    single = order_of([parts[0]], 5, blocks, seed=3)
    assert [row for row, _ in stream(take(single, 6))] == Blocks(np.arange(30) // 5, 1)(3, 0).tolist()


def test_a_single_stratum_is_the_order_that_a_cohort_always_had():
    rows = np.arange(7, 40)
    single = order_of([Stratum("a", False, rows, Fraction(1))], 8, seed=4, batches=9)
    assert type(single) is PatientOrder
    assert stream(list(single)) == stream(list(PatientOrder(rows, 8, seed=4, batches=9)))


def test_a_share_of_one_record_among_millions_is_not_lost():
    rare = [
        Stratum("a", False, np.arange(3), Fraction(3, 10**7)),
        Stratum("b", False, np.arange(3, 9), 1 - Fraction(3, 10**7)),
    ]
    assert drawn(rare, 10**7) == [3, 10**7 - 3]


@pytest.mark.parametrize("share", [0.5, 0.3, 1 / 3, 0.125])
def test_batches_hold_what_was_asked_for(share):
    exact = Fraction(share).limit_denominator(10**6)
    parts = [Stratum("a", True, np.arange(40), exact), Stratum("b", False, np.arange(40, 9000), 1 - exact)]
    counts = [int((key.rows < 40).sum()) for key in take(StratifiedOrder(parts, 64, seed=2), 50)]
    assert set(counts) <= {math.floor(64 * share), math.ceil(64 * share)}
    assert sum(counts) == pytest.approx(50 * 64 * share, abs=1)
