"""The figure of patterns, down to one of nothing."""

from __future__ import annotations

from foundation.cohort.summary.figures.patterns import Pattern, pattern_plot


def test_patterns_can_be_drawn_down_to_one_of_nothing():
    few = pattern_plot([Pattern(frozenset(), 1)], {"a": 0}, 1, "c")
    assert "none of them" in few.alt
    many = pattern_plot([Pattern(frozenset("ab"), 5), Pattern(frozenset(), 2, "7 other")], {"a": 5, "b": 5}, 7, "c")
    assert b"</svg>" in many.data
    assert "5 patients: a, b" in many.alt
