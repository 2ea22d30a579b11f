"""Order of patients: a function of (seed, epoch) alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.data.sampler import OnePass, PatientOrder
from foundation.errors import ConfigError


def take(order, batches):
    return list(itertools.islice(iter(order), batches))


def stream(keys):
    rows = np.concatenate([k.rows for k in keys])
    return list(zip(rows.tolist(), np.concatenate([k.epochs for k in keys]).tolist(), strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_ranks_together_are_one_process(world_size):
    rows = range(100, 137)
    single = take(PatientOrder(rows, 8, seed=5), 12)
    per_rank = [take(PatientOrder(rows, 8, seed=5, rank=r, world_size=world_size), 12) for r in range(world_size)]
    for batch, pieces in zip(single, zip(*per_rank, strict=True), strict=True):
        assert stream([batch]) == stream(pieces)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    other_size=st.integers(1, 40),
    steps=st.integers(0, 6),
    seed=st.integers(0, 9),
)
def test_samples_seen_is_all_that_resuming_needs(count, batch_size, other_size, steps, seed):
    first = take(PatientOrder(range(count), batch_size, seed=seed), steps)
    rest = take(PatientOrder(range(count), other_size, seed=seed, samples_seen=steps * batch_size), 3)
    seen = steps * batch_size + 3 * other_size
    straight = stream(take(PatientOrder(range(count), 1, seed=seed), seen))
    assert stream(first + rest if first else rest) == straight
    for epoch in range(seen // count):
        assert sorted(r for r, e in straight if e == epoch) == list(range(count))


def test_every_iteration_starts_at_samples_seen():
    order = PatientOrder(range(9), 4, seed=1, samples_seen=8, batches=3)
    assert len(order) == len(list(order)) == 3
    assert stream(list(order)) == stream(list(order))


def test_the_order_of_the_rows_given_does_not_matter():
    assert stream(take(PatientOrder([4, 2, 9, 2], 2, seed=0), 6)) == stream(take(PatientOrder([9, 4, 2], 2, seed=0), 6))


def test_seeds_and_epochs_differ():
    orders = [stream(take(PatientOrder(range(50), 50, seed=s), 2)) for s in (0, 1)]
    rows = [[r for r, _ in order] for order in orders]
    assert rows[0][:50] != rows[0][50:]
    assert rows[0] != rows[1]


def test_an_endless_order_has_no_length():
    with pytest.raises(TypeError, match="endless"):
        len(PatientOrder(range(3), 1, seed=0))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_one_pass_gives_every_row_once_in_order(world_size):
    rows = [5, 3, 8, 1, 9, 0, 7]
    per_rank = [list(OnePass(rows, 3, rank=r, world_size=world_size)) for r in range(world_size)]
    assert all(len(keys) == len(OnePass(rows, 3)) == 3 for keys in per_rank)
    together = [key for keys in zip(*per_rank, strict=True) for key in keys]
    assert np.concatenate([key.rows for key in together]).tolist() == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": [], "batch_size": 2}, "no record to train on"),
        ({"rows": [1], "batch_size": 2, "world_size": 3}, "a batch of 2 does not give 3 processes"),
        ({"rows": [1], "batch_size": 2, "rank": 2, "world_size": 2}, "rank 2 is not one of 2"),
    ],
)
def test_what_cannot_be_split_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PatientOrder(**arguments, seed=0)
