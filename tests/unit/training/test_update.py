"""An update is that of a hand-written loop, and one that is not finite changes nothing at all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.replicated import Replicated
from foundation.training.update import Updater

CONFIG = OptimiserConfig(learning_rate=0.1, clip=0.5, warm_up=0.0, weight_decay=0.1)
CPU = torch.device("cpu")


def make() -> tuple[nn.Module, Updater]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    return module, Updater(module, CONFIG, Replicated(device=CPU), ema=0.9)


def losses(module, x):
    """Two scalars whose gradients add up."""
    yield module(x[:3]).square().sum()
    yield module(x[3:]).square().sum()


def state(updater: Updater) -> list[torch.Tensor]:
    moments = [value for moments in updater.optimiser.state.values() for value in moments.values()]
    return [t.clone() for t in [*updater.module.parameters(), *moments, *updater.average.state_dict().values()]]


def test_it_is_what_a_loop_by_hand_does():
    module, updater = make()
    by_hand = copy.deepcopy(module)
    decaying = [p for n, p in by_hand.named_parameters() if n.endswith("weight")]
    rest = [p for n, p in by_hand.named_parameters() if n.endswith("bias")]
    optimiser = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=0.1,
        betas=CONFIG.betas,
        foreach=False,
    )
    for step in range(5):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        updated = updater.update(losses(module, x), step, 5)
        optimiser.zero_grad()
        by_hand(x).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        for group in optimiser.param_groups:
            group["lr"] = updated.learning_rate
        optimiser.step()
        torch.testing.assert_close(updated.gradient_norm, norm)
        assert updated.finite
    for ours, theirs in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_updates_nothing(bad, where):
    module, updater = make()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert updater.update(losses(module, x), 0, 5).finite
    before = state(updater)

    def spoilt():
        yield module(x[:3]).square().sum()
        whole = module(x[3:]).square().sum()
        # A loss of zero whose gradient is not finite, or a value that no gradient reaches.
        yield whole + bad if where == "loss" else whole + (next(module.parameters()).sum() * 0).sqrt() * bad

    assert not updater.update(spoilt(), 1, 5).finite
    assert all(torch.equal(a, b) for a, b in zip(before, state(updater), strict=True))
    updated = updater.update(losses(module, x), 2, 5)
    assert updated.finite and not torch.equal(before[0], state(updater)[0])
