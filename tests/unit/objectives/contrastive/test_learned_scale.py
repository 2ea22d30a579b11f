"""The learned scale of a contrast keeps its bound, and can come back from beyond it."""

from __future__ import annotations

import pytest

from foundation.objectives.contrastive.learned_scale import LearnedScale


@pytest.mark.parametrize(("start", "expected"), [(50.0, 50.0), (100.0, 100.0), (300.0, 100.0), (0.5, 1.0)])
def test_the_scale_is_bounded(start, expected):
    assert LearnedScale(start, highest=100.0)().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("start", "sign", "moves"), [(300, 1, True), (300, -1, False), (0.5, 1, False), (0.5, -1, True)]
)
def test_a_scale_beyond_its_bound_can_only_come_back(start, sign, moves):
    scale = LearnedScale(start, highest=100.0)
    (sign * scale()).backward()
    assert bool(scale.logarithm.grad != 0) == moves
