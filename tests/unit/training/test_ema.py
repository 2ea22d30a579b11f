"""The average follows the weights as its formula says, and is not ruled by where they started."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foundation.training.ema import decay_of, follow


def test_it_is_the_average_that_its_formula_says():
    module, expected = nn.Linear(3, 2).double(), None
    average = follow(module, 0.9)
    for update in range(200):
        with torch.no_grad():
            module.weight += torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(update))
        average.update_parameters(module)
        keep = 0.0 if expected is None else min(0.9, (1 + update) / (10 + update))
        expected = module.weight.detach() * (1 - keep) + (0 if expected is None else keep * expected)
    torch.testing.assert_close(average.module.weight, expected)
    assert not average.module.weight.requires_grad and module.weight.requires_grad


@pytest.mark.parametrize("updates", [10, 100, 1000])
def test_the_start_hardly_counts_after_a_short_run(updates):
    left = 1.0
    for update in range(1, updates):
        left *= decay_of(update, 0.9999)
    assert left < 1e-3
    assert decay_of(10**6, 0.9999) == 0.9999


def test_it_has_the_buffers_of_the_module():
    module = nn.BatchNorm1d(2)
    average = follow(module, 0.9)
    module(torch.randn(8, 2) + 5)
    average.update_parameters(module)
    assert torch.equal(average.module.running_mean, module.running_mean)
