from __future__ import annotations

import numpy as np
import pytest
from foundation.cohort.summary.pictures import (
    Panel,
    Pattern,
    bin_edges,
    class_bars,
    few_levels,
    histogram,
    histograms,
    pattern_plot,
    survival_plot,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("event", [[1.0], [0.0]])
@pytest.mark.parametrize("time", [[0.0], [5.0]])
def test_one_patient_can_be_drawn(time, event):
    picture = survival_plot(np.array(time), np.array(event), horizon=1.0, unit="days", alt="a", title="t", caption="c")
    assert picture.data.startswith(b"<?xml")


def test_numbers_of_steps_do_not_grow_with_patients():
    generator = np.random.default_rng(0)
    sizes = []
    for count in (3_000, 30_000):
        time = generator.exponential(10, count)
        sizes.append(len(survival_plot(time, np.ones(count), horizon=40, unit="", alt="", title="", caption="").data))
    assert sizes[1] < 1.1 * sizes[0]


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
    assert b"</svg>" in class_bars({name: 3}, 0, alt="a", title=name, caption="c").data


def test_patterns_can_be_drawn_down_to_one_of_nothing():
    few = pattern_plot([Pattern(frozenset(), 1)], {"a": 0}, 1, "c")
    assert "none of them" in few.alt
    many = pattern_plot([Pattern(frozenset("ab"), 5), Pattern(frozenset(), 2, "7 other")], {"a": 5, "b": 5}, 7, "c")
    assert b"</svg>" in many.data
    assert "5 patients: a, b" in many.alt


def test_the_same_picture_has_the_same_bytes():
    panel = Panel(np.random.default_rng(0).standard_normal(500), "x", "t")
    first, second = (histogram(panel, alt="a", caption="c").data for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first
