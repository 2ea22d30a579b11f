"""Positions as runs: everything is covered once, by runs as long as can be."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.cohort.reading.positions import positions_of, runs
from foundation.errors import DataError


@given(st.lists(st.integers(0, 30), unique=True))
def test_runs_cover_everything_once_and_are_as_long_as_can_be(positions):
    positions = np.array(positions, dtype=np.int64)
    found = list(runs(positions))
    covered = [place for piece, _ in found for place in range(piece.start, piece.stop)]
    assert covered == list(range(len(positions)))
    for piece, target in found:
        np.testing.assert_array_equal(positions[piece], np.arange(target.start, target.stop))
    for (_, before), (_, after) in itertools.pairwise(found):
        assert before.stop != after.start


def test_positions():
    assert positions_of(["c", "a"], ["a", "b", "c"], Path("t")).tolist() == [2, 0]
    with pytest.raises(DataError, match=r"t: has no sample 'barcod'(.|\n)*did you mean 'barcode'"):
        positions_of(["a", "barcod"], ["a", "barcode"], Path("t"))
