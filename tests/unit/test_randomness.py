"""Keyed random numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.randomness import draw, generator, permutation

keys = st.lists(st.tuples(st.text(max_size=8), st.integers(0, 9)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(keys=keys, seed=st.integers(0, 2**40), count=st.integers(1, 12))
def test_a_row_depends_on_its_own_key_alone(keys, seed, count):
    together = draw(seed, "test", [k for k, _ in keys], [e for _, e in keys], count)
    for row, (record, epoch) in zip(together, keys, strict=True):
        assert (row == draw(seed, "test", [record], [epoch], count)[0]).all()
    assert ((together >= 0) & (together < 1)).all()


def test_every_part_of_the_key_matters():
    base = draw(1, "a", ["p"], [2], 4)
    for other in (draw(2, "a", ["p"], [2], 4), draw(1, "b", ["p"], [2], 4)):
        assert not (base == other).any()
    for other in (draw(1, "a", ["q"], [2], 4), draw(1, "a", ["p"], [3], 4)):
        assert not (base == other).any()


def test_draws_are_uniform():
    draws = draw(0, "test", [f"p{i}" for i in range(5000)], [0] * 5000, 4)
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(draws.T)[np.triu_indices(4, 1)]).max() < 0.05


def test_these_numbers_never_change():
    # A change here means that a run can no longer be resumed or repeated with a later version.
    assert draw(0, "test", ["p"], [0], 1)[0, 0] == 0.12030376745741689
    assert permutation(7, "order", 1, 8).tolist() == [4, 7, 6, 2, 5, 0, 3, 1]
    assert generator(0, "noise", "p", 3).bit_generator.random_raw() == 14912652347426497966


def test_a_permutation_holds_every_number_once():
    assert sorted(permutation(3, "order", 0, 100)) == list(range(100))
    assert not (permutation(3, "order", 0, 100) == permutation(3, "order", 1, 100)).all()
