"""The average follows the weights as its formula says, and is not ruled by where they began."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foundation.training.ema import Average, kept
from foundation.training.parallel.replicated import Replicated

HAPPENED = torch.tensor(True)
PLAIN = Replicated(device=torch.device("cpu"))


def test_it_is_the_average_that_its_formula_says():
    module, expected = nn.Linear(3, 2).double(), None
    average = Average(module, 0.9, PLAIN)
    for update in range(200):
        with torch.no_grad():
            module.weight += torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(update))
        average.update(HAPPENED)
        keep = 0.0 if expected is None else min(0.9, (1 + update) / (10 + update))
        expected = module.weight.detach() * (1 - keep) + (0 if expected is None else keep * expected)
    torch.testing.assert_close(average.averages["weight"], expected)


@pytest.mark.parametrize("updates", [10, 100, 1000])
def test_where_it_began_hardly_counts_after_a_short_run(updates):
    left = 1.0
    for update in range(1, updates):
        left *= float(kept(update, 0.9999))
    assert left < 1e-3
    assert float(kept(10**6, 0.9999)) == 0.9999


def test_an_update_that_did_not_happen_changes_nothing():
    module = nn.Linear(2, 2)
    average = Average(module, 0.9, PLAIN)
    average.update(HAPPENED)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    with torch.no_grad():
        module.weight.add_(1)
    average.update(torch.tensor(False))
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


def test_what_is_shown_is_the_average_and_then_the_weights_again():
    module = nn.Linear(2, 2)
    average = Average(module, 0.5, PLAIN)
    for _ in range(3):
        with torch.no_grad():
            module.weight.add_(1)
        average.update(HAPPENED)
    weights, averaged = module.weight.detach().clone(), average.averages["weight"].clone()
    with average.shown():
        assert torch.equal(module.weight, averaged) and not torch.equal(averaged, weights)
    assert torch.equal(module.weight, weights) and torch.equal(average.averages["weight"], averaged)


def test_saved_and_loaded_it_goes_on_alike():
    def steps(module, average, first, last):
        for step in range(first, last):
            with torch.no_grad():
                module.weight.add_(step)
            average.update(HAPPENED)

    torch.manual_seed(0)
    whole, halves = nn.Linear(2, 2), nn.Linear(2, 2)
    halves.load_state_dict(whole.state_dict())
    one, first = Average(whole, 0.9, PLAIN), Average(halves, 0.9, PLAIN)
    steps(whole, one, 0, 6), steps(halves, first, 0, 3)
    second = Average(halves, 0.9, PLAIN)
    for name, kept_there in first.state_dict().items():
        second.state_dict()[name].copy_(kept_there)
    steps(halves, second, 3, 6)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in one.state_dict().items())
