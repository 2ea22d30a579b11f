"""A sample of many records: from few shards that lie evenly over the cohort, nested, and all where they are few."""

from types import SimpleNamespace

import numpy as np

from foundation.data.sample import FEWEST_SHARDS, sample

COHORT = SimpleNamespace(shards_of=lambda rows: rows // 10)


def test_few_records_are_taken_as_they_are():
    rows = np.array([3, 7, 900])
    assert sample(COHORT, rows, 3) is rows


def test_a_sample_comes_from_few_shards_evenly_spread():
    rows = np.arange(0, 100_000, 2)
    chosen = sample(COHORT, rows, 1000)
    assert len(chosen) == 1000
    assert np.isin(chosen, rows).all()
    assert (np.diff(chosen) > 0).all()
    shards = np.unique(chosen // 10)
    assert len(shards) == 200
    gaps = np.diff(shards)
    assert gaps.max() <= 3 * gaps.min(), "three distances at most lie between multiples of the golden ratio"


def test_a_small_sample_is_of_the_shards_of_a_large_one():
    rows = np.arange(100_000)
    large = set((sample(COHORT, rows, 5000) // 10).tolist())
    assert set((sample(COHORT, rows, 1000) // 10).tolist()) <= large


def test_a_tiny_sample_still_comes_from_several_shards():
    chosen = sample(COHORT, np.arange(100_000), 64)
    assert len(np.unique(chosen // 10)) == FEWEST_SHARDS
