"""Keyed random numbers."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.randomness import chosen, draw, generator, permutation

keys = st.lists(st.tuples(st.text(max_size=8), st.integers(0, 9)), min_size=1, max_size=6)
seeds = st.integers(0, 2**40)
RECORDS = [f"p{i}" for i in range(1000)]


def by_hand(seed, purpose, record, epoch, place):
    """One draw, as the words at the top of the file define it, in integers of Python."""
    digest = hashlib.shake_128(f"{seed}\x1f{purpose}\x1f{epoch}\x1f{record}".encode()).digest(16)
    key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]

    def word(counter):
        x = (key[0] + counter * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64 ^ key[1]
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    leading = word(place // 4) >> (16 * (place % 4)) & 0xFFFF
    return (leading * 2**37 + (word(2**64 - 1 - place) >> 27)) / 2**53


@settings(deadline=None, max_examples=50)
@given(keys=keys, seed=seeds, count=st.integers(0, 12))
def test_a_draw_is_what_its_definition_says(keys, seed, count):
    records, epochs = [k for k, _ in keys], [e for _, e in keys]
    expected = [[by_hand(seed, "test", *key, place) for place in range(count)] for key in keys]
    found = draw(seed, "test", records, epochs, count)
    assert found.shape == (len(keys), count)
    assert found.tolist() == expected
    assert draw(seed, "test", records, np.array(epochs), count).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(keys=keys, seed=seeds, count=st.integers(1, 12), more=st.integers(0, 9), data=st.data())
def test_a_row_depends_on_its_own_key_alone(keys, seed, count, more, data):
    together = draw(seed, "test", [k for k, _ in keys], [e for _, e in keys], count)
    order = data.draw(st.permutations(range(len(keys))))
    part = order[: data.draw(st.integers(0, len(keys)))]
    elsewhere = draw(seed, "test", [keys[i][0] for i in part], [keys[i][1] for i in part], count + more)
    assert (elsewhere[:, :count] == together[part]).all()
    assert ((together >= 0) & (together < 1)).all()


def test_a_batch_of_many_features_is_made_in_parts_that_nobody_sees():
    epochs, count = np.arange(40), 20_001
    draws = draw(1, "test", RECORDS[:40], epochs, count)
    mask = chosen(1, "test", RECORDS[:40], epochs, count, 0.3)
    assert (mask == (draws < 0.3)).all()
    for b in (0, 7, 39):
        assert (draws[b] == draw(1, "test", [RECORDS[b]], [b], count)[0]).all()
    assert len(np.unique(draws)) == draws.size


@settings(deadline=None, max_examples=50)
@given(keys=keys, seed=seeds, count=st.integers(0, 40), anything=st.floats(allow_nan=False))
def test_chosen_is_a_comparison_with_draw(keys, seed, count, anything):
    records, epochs = [k for k, _ in keys], [e for _, e in keys]
    draws = draw(seed, "test", records, epochs, count)
    # A draw itself, its neighbours and the edges of leading bits are where the two could differ.
    drawn = draws.ravel()[:8]
    near = np.concatenate([drawn, np.nextafter(drawn, 2), drawn - 2.0**-53, np.floor(drawn * 2**16) / 2**16])
    for probability in [anything, *near.tolist(), 0.0, 5e-324, 0.5, 1 - 2.0**-53, 1.0]:
        found = chosen(seed, "test", records, epochs, count, probability)
        assert found.dtype == bool
        assert (found == (draws < probability)).all(), probability


def test_a_probability_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        chosen(0, "test", ["p"], [0], 4, math.nan)


def test_every_record_has_its_epoch():
    for function in (draw, lambda *key: chosen(*key, 0.5)):
        with pytest.raises(ValueError, match="zip"):
            function(0, "test", ["p", "q"], [0], 4)
        assert function(0, "test", [], [], 4).shape == (0, 4)


def test_every_part_of_the_key_matters():
    base = draw(1, "a", ["p"], [2], 4)
    for other in (draw(2, "a", ["p"], [2], 4), draw(1, "b", ["p"], [2], 4)):
        assert not (base == other).any()
    for other in (draw(1, "a", ["q"], [2], 4), draw(1, "a", ["p"], [3], 4)):
        assert not (base == other).any()


@pytest.mark.parametrize("shift", [0, 8, 21, 45], ids=lambda shift: f"from bit {shift}")
def test_draws_are_uniform(shift):
    integers = (draw(0, "test", RECORDS, [0] * 1000, 1000) * 2.0**53).astype(np.uint64)
    counts = np.bincount((integers >> np.uint64(shift)).ravel() & 0xFF, minlength=256)
    expected = integers.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 330.5  # chi-squared, 255 degrees of freedom, p = 0.001


def test_no_bit_tells_of_another():
    """Of the same draw, the next ones of its record, other records, epochs, purposes and seeds: 53 x 53 pairs each."""

    def signs(purpose="test", epoch=0, seed=0):
        integers = (draw(seed, purpose, RECORDS, [epoch] * 1000, 100) * 2.0**53).astype(np.uint64)
        return (integers[..., None] >> np.arange(53, dtype=np.uint64) & np.uint64(1)).astype(np.float32) * 2 - 1

    base = signs()
    size = base[..., 0].size
    others = {f"{lag} draws on": np.roll(base, -lag, axis=1) for lag in (1, 2, 3, 4, 8)}
    others |= {f"{lag} records on": np.roll(base, -lag, axis=0) for lag in (1, 2)}
    others |= {"purpose": signs(purpose="tesu"), "epoch": signs(epoch=1), "seed": signs(seed=1)}
    # Of 2,809 sums of signs one lies beyond 5.5 standard deviations with a probability of 1e-4.
    limit = 5.5 * math.sqrt(size)
    assert abs(base.sum(axis=(0, 1))).max() < limit
    assert abs(np.tensordot(base, base, axes=2 * [[0, 1]]) - size * np.eye(53)).max() < limit
    for name, other in others.items():
        assert abs(np.tensordot(base, other, axes=2 * [[0, 1]])).max() < limit, name


def test_runs_of_a_record_are_as_long_as_chance_makes_them():
    """Gaps between choices of probability 0.1 are geometric, along features and along records."""
    mask = chosen(3, "test", RECORDS, [0] * 1000, 1000, 0.1)
    for line in (mask.ravel(), mask.T.ravel()):
        gaps = np.minimum(np.diff(np.flatnonzero(line)), 60)
        expected = len(gaps) * np.append(0.1 * 0.9 ** np.arange(59), 0.9**59)
        counts = np.bincount(gaps, minlength=61)[1:]
        assert ((counts - expected) ** 2 / expected).sum() < 98.3  # 59 degrees of freedom, p = 0.001


def test_these_numbers_never_change():
    # A change here means that a run can no longer be resumed or repeated with a later version.
    assert draw(0, "test", ["p", "q"], [0, 3], 5).tolist() == [
        [0.1046621613347759, 0.9943614074428575, 0.5055446791298716, 0.3931604642313532, 0.16248772013149881],
        [0.9217050872010828, 0.1615454169570949, 0.9976008902465768, 0.6489199272606611, 0.5799409716160874],
    ]
    assert np.packbits(chosen(0, "test", ["p"], [0], 24, 0.5)).tolist() == [155, 183, 142]
    assert permutation(7, "order", 1, 8).tolist() == [4, 7, 6, 2, 5, 0, 3, 1]
    assert generator(0, "noise", "p", 3).bit_generator.random_raw() == 14912652347426497966


def test_a_permutation_holds_every_number_once():
    assert sorted(permutation(3, "order", 0, 100)) == list(range(100))
    assert not (permutation(3, "order", 0, 100) == permutation(3, "order", 1, 100)).all()
