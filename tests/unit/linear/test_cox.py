"""The partial likelihood of Cox, and its ridge fit, against loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from foundation.linear.cox import fit_cox, partial_likelihood


def slow(risk, time, event, groups):
    total = 0.0
    for i in np.flatnonzero(event):
        at_risk = (groups == groups[i]) & (time >= time[i])
        total += risk[i] - np.log(np.exp(risk[at_risk]).sum())
    return total


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_sum_over_events_of_the_share_of_those_at_risk(seed):
    random = np.random.default_rng(seed)
    time, event, groups = random.integers(1, 9, 30).astype(float), random.integers(0, 2, 30), random.integers(0, 3, 30)
    risk = 2 * random.standard_normal(30)
    assert partial_likelihood(risk, time, event, groups) == pytest.approx(slow(risk, time, event, groups))


def test_the_fit_is_where_its_penalised_mean_is_greatest():
    random = np.random.default_rng(0)
    x = random.standard_normal((80, 3))
    time, event, groups = random.exponential(np.exp(-x[:, 0])), random.integers(0, 2, 80), random.integers(0, 2, 80)

    def value(weights):
        return 0.05 * weights @ weights - partial_likelihood(x @ weights, time, event, groups) / event.sum()

    best = fit_cox(x, time, event, groups, 0.1)
    assert check_grad(value, lambda _: np.zeros(3), best) < 1e-4


def test_without_an_event_it_says_nothing():
    assert partial_likelihood(np.ones(4), np.arange(4.0), np.zeros(4), np.zeros(4)) == 0
