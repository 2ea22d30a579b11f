"""Losses of survival against their definitions in numpy, lifelines and torchsurv."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.tasks.survival_losses import (
    Watched,
    cox_of_all,
    efron,
    interval_log_likelihood,
    observed_logits,
    remember,
)

with warnings.catch_warnings():
    # Third-party packages import parts of torch and pandas that are on their way out.
    warnings.simplefilter("ignore")
    from lifelines import CoxPHFitter
    from torchsurv.loss.cox import neg_partial_log_likelihood

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def patients(seed, count=24, ends=8, groups=2):
    """Patients with tied times, in float64."""
    random = np.random.default_rng(seed)
    return Watched(
        torch.from_numpy(random.standard_normal(count)),
        torch.from_numpy(random.integers(1, ends, count).astype(float)),
        torch.from_numpy((random.random(count) < 0.6).astype(float)),
        torch.from_numpy(random.integers(0, groups, count)),
    )


def efron_by_definition(rows, others=None):
    """Group by group, time by time, event by event."""
    risk, time, event, group = (column.numpy() for column in rows)
    late = [(np.empty(0),) * 4 if others is None else tuple(column.numpy() for column in others)][0]
    total = 0.0
    for g in set(group.tolist()):
        for t in sorted(set(time[(group == g) & (event == 1)].tolist())):
            died = np.flatnonzero((group == g) & (time == t) & (event == 1))
            at_risk = (
                np.exp(risk[(group == g) & (time >= t)]).sum() + np.exp(late[0][(late[3] == g) & (late[1] >= t)]).sum()
            )
            gone = np.exp(risk[died]).sum()
            total += sum(np.log(at_risk - number / len(died) * gone) for number in range(len(died)))
            total -= risk[died].sum()
    return total / event.sum()


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 3))
def test_cox_is_efrons_by_definition(seed, ends, groups):
    rows = patients(seed, ends=ends, groups=groups)
    assert efron(rows).item() == pytest.approx(efron_by_definition(rows), rel=1e-10)
    others = patients(seed + 1, count=9, ends=ends, groups=3)
    assert efron(rows, others).item() == pytest.approx(efron_by_definition(rows, others), rel=1e-10)


@given(st.integers(0, 10_000))
def test_cox_is_that_of_torchsurv(seed):
    rows = patients(seed, groups=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = neg_partial_log_likelihood(
            rows.risk_B.float(), rows.event_B.bool(), rows.time_B, ties_method="efron", reduction="sum"
        )
    assert efron(rows).item() == pytest.approx(theirs.item() / rows.event_B.sum().item(), rel=1e-5)


def test_cox_is_that_of_lifelines():
    """At the weights that lifelines finds the gradient is zero, and the loss is its log-likelihood."""
    random = np.random.default_rng(0)
    rows = patients(0, count=80, ends=12)
    x = random.standard_normal((80, 3))
    table = pd.DataFrame(x).assign(time=rows.time_B.numpy(), event=rows.event_B.numpy(), group=rows.group_B.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitter = CoxPHFitter().fit(
            table, "time", "event", strata=["group"], fit_options={"precision": 1e-12, "r_precision": 1e-14}
        )
    weights = torch.from_numpy(fitter.params_.to_numpy().copy()).requires_grad_()
    loss = efron(rows._replace(risk_B=torch.from_numpy(x) @ weights))
    loss.backward()
    assert loss.item() * rows.event_B.sum().item() == pytest.approx(-fitter.log_likelihood_, rel=1e-8)
    torch.testing.assert_close(weights.grad, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-7)


def test_the_gradient_is_that_of_the_loss():
    rows = patients(3)
    risk = rows.risk_B.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: efron(rows._replace(risk_B=r)), risk)
    loss, everyone = cox_of_all(rows._replace(risk_B=risk))
    (found,) = torch.autograd.grad(3 * loss, risk)
    (wanted,) = torch.autograd.grad(3 * efron(rows._replace(risk_B=risk)), risk)
    torch.testing.assert_close(found, wanted, **EXACT)
    assert loss.item() == efron(rows).item()
    assert not everyone.risk_B.requires_grad


def test_large_risks_do_not_overflow():
    rows = patients(3)
    shifted = rows._replace(risk_B=rows.risk_B + 2000)
    torch.testing.assert_close(efron(shifted), efron(rows), rtol=1e-8, atol=1e-8)


def test_somebody_who_comes_again_counts_once():
    """A patient of this batch who is remembered from an earlier one is at risk by the new risk alone."""
    rows = patients(4)
    stale = rows._replace(risk_B=rows.risk_B + 1)
    assert torch.equal(cox_of_all(rows, stale)[0], cox_of_all(rows)[0])
    empty = Watched(*(column[:0] for column in rows))
    kept = remember(remember(empty, stale, 100), rows, 100)
    assert torch.equal(kept.risk_B, rows.risk_B)
    assert torch.equal(remember(empty, rows, 5).time_B, rows.time_B[-5:])


def likelihood_by_definition(logits, time, cause, cuts):
    """Interval by interval: chances of nothing until the end, and of what happened then."""
    total = 0.0
    for k in range(len(cuts) - 1):
        odds = np.exp(logits[:, k])
        chance = np.append(1, odds) / (1 + odds.sum())
        if cause and cuts[k] < time <= cuts[k + 1]:
            return total + np.log(chance[cause])
        lived = time > cuts[k + 1] if cause and time <= cuts[-1] else time >= (cuts[k] + cuts[k + 1]) / 2
        total += np.log(chance[0]) if lived else 0.0
    return total


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_intervals_are_their_definition(seed, causes):
    random = np.random.default_rng(seed)
    cuts = np.append(0.0, np.cumsum(random.integers(1, 5, 4)))
    time = random.integers(1, int(cuts[-1]) + 4, 30).astype(float)
    cause = random.integers(0, causes + 1, 30)
    logits = random.standard_normal((30, causes, 4))
    found = interval_log_likelihood(*map(torch.from_numpy, (logits, time, cause, cuts)))
    expected = [likelihood_by_definition(logits[i], time[i], cause[i], cuts) for i in range(30)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_observed_logits_are_the_most_likely_ones():
    """The gradient of the likelihood vanishes there, when the patient who stands for the prior is counted in."""
    random = np.random.default_rng(0)
    cuts = torch.tensor([0.0, 2, 5, 9], dtype=torch.float64)
    time = torch.from_numpy(random.integers(1, 12, 50).astype(float))
    cause = torch.from_numpy(random.integers(0, 3, 50))
    prior = torch.from_numpy(random.standard_normal((2, 3)))
    logits = observed_logits(time, cause, cuts, prior).requires_grad_()
    chance = torch.cat([torch.zeros(1, 3), prior]).softmax(dim=0)
    of_prior = (chance * torch.cat([torch.zeros(1, 3), logits]).log_softmax(dim=0)).sum()
    likelihood = interval_log_likelihood(logits.expand(50, 2, 3), time, cause, cuts).sum() + of_prior
    (gradient,) = torch.autograd.grad(likelihood, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)
