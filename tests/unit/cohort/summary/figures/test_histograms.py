"""Histograms: bins that hold nearly all values, whole levels, strange values and labels, the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.cohort.summary.figures.histograms import Panel, bin_edges, few_levels, histogram, histograms


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    st.booleans(),
)
def test_bins_rise_and_hold_nearly_all(values, whole):
    values = np.array(values, dtype=np.float32)
    values = np.round(values) if whole else values
    edges = bin_edges(values, whole=whole)
    assert np.all(np.diff(edges) > 0)
    inside = np.mean((values >= edges[0]) & (values <= edges[-1]))
    assert inside >= 1 - 0.004 - 2 / len(values)
    if whole:
        assert np.all(edges % 1 == 0.5)
        assert len(set(np.diff(edges))) == 1


def test_one_outlier_does_not_flatten_the_rest():
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 1e9)
    assert bin_edges(values)[-1] < 10


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0, 1, 1, 2], [0, 1, 2]),
        ([0, 0.5], None),
        (list(range(9)), None),
        ([0] * 1500 + [0.5], None),
        ([3], [3]),
    ],
)
def test_few_whole_levels_are_told_from_a_continuum(values, levels):
    found = few_levels(np.array(values, dtype=np.float32))
    assert (None if found is None else found.tolist()) == levels


@pytest.mark.parametrize("values", [[], [np.nan, np.inf], [2.5], [1.0, 1.0, np.inf], [0.1, 0.2, 3e38]])
@pytest.mark.parametrize("log", [False, True])
def test_strange_values_can_be_drawn(values, log):
    panel = Panel(np.array(values, dtype=np.float32), "x", "t", {"low": 0.0, "high": 1.0}, [(0, 1)], log=log)
    assert b"</svg>" in histogram(panel, alt="a", caption="c").data


def test_labels_that_look_like_markup_or_formulas_are_drawn_as_they_are():
    name = "a<b> $x_{$ & y"
    panel = Panel(np.arange(20.0), name, name)
    assert b"</svg>" in histograms([panel, panel], alt="a", title=name, caption="c").data


def test_the_same_picture_has_the_same_bytes():
    panel = Panel(np.random.default_rng(0).standard_normal(500), "x", "t")
    first, second = (histogram(panel, alt="a", caption="c").data for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first
