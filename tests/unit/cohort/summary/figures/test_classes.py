"""The figure of classes draws any label as it is."""

from __future__ import annotations

from foundation.cohort.summary.figures.classes import class_bars


def test_labels_that_look_like_markup_or_formulas_are_drawn_as_they_are():
    name = "a<b> $x_{$ & y"
    assert b"</svg>" in class_bars({name: 3}, 0, alt="a", title=name, caption="c").data
