"""The checks: what is right passes, and a map that is wrong fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finetune.explain.guards import completeness, run_guards, sample

ROWS = np.arange(48)


def test_the_right_map_stands_and_a_wrong_one_does_not(explainer, cohort):
    rows = ROWS[cohort.present_NM[ROWS].any(axis=1)]
    spread_S = explainer.spread(rows)
    of = explainer.attribute(rows, explainer.read(rows), spread_S)
    right = run_guards(explainer, [of], spread_S)
    assert {guard.name for guard in right.guards} == {"random weights", "deletion and insertion"}
    assert all(guard.passed for guard in right.guards if guard.name == "deletion and insertion")
    wrong = run_guards(explainer, [replace(of, attribution_BSP=-of.attribution_BSP)], spread_S)
    orders = [guard for guard in wrong.guards if guard.name == "deletion and insertion"]
    assert not any(guard.passed for guard in orders) and all(guard.value < 0 for guard in orders)
    assert wrong.failed(explainer.scores[0]) and "spreads" in orders[0].sentence
    # The map of the very weights that were put in disorder agrees with itself.
    other = explainer.randomised(0)
    theirs = other.attribute(rows, other.read(rows), spread_S)
    same = [guard for guard in run_guards(explainer, [theirs], spread_S).guards if guard.name == "random weights"]
    assert all(guard.value > 0.4 and not guard.passed for guard in same)
    np.testing.assert_allclose(right.curves["deletion"][:, -1], 0, atol=1e-5)


def test_attributions_that_do_not_add_up_are_told(explainer):
    errors = np.full((10, 4), 0.001)
    errors[:2, 1] = 0.5
    found = completeness([errors], explainer.scores)
    assert [guard.passed for guard in found] == [True, False, True, True] and found[1].value == 0.5


def test_a_sample_is_spread_evenly():
    np.testing.assert_array_equal(sample(np.arange(10, 110), 3), [10, 60, 109])
    np.testing.assert_array_equal(sample(np.arange(5), 64), np.arange(5))
