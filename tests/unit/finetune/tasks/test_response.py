"""Proportional odds by their definition, and thresholds that stay in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.tasks.response import OrdinalHead, Response, ResponseConfig, ordinal_log_likelihood

DECLARED = {"response": {"kind": "response", "classes": {"PD": 1, "SD": 1, "PR": 1, "CR": 1}}}


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_likelihood_is_the_difference_of_two_sigmoids(seed, classes):
    random = np.random.default_rng(seed)
    above = -np.sort(-3 * random.standard_normal((20, classes - 1)), axis=1)
    code = random.integers(0, classes, 20)
    chance = np.pad(1 / (1 + np.exp(-above)), ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
    expected = np.log(-np.diff(chance, axis=1)[np.arange(20), code])
    outputs = torch.from_numpy(above).requires_grad_()
    found = ordinal_log_likelihood(outputs, torch.from_numpy(code))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-8)
    found.sum().backward()
    assert outputs.grad.isfinite().all()


def test_far_from_every_threshold_the_likelihood_is_still_finite():
    for far in (-200.0, 200.0):
        outputs = torch.tensor([[far + 1, far, far - 1]]).requires_grad_()
        for code in range(4):
            value = ordinal_log_likelihood(outputs, torch.tensor([code])).sum()
            (gradient,) = torch.autograd.grad(value, outputs)
            assert value.isfinite() and gradient.isfinite().all()


def test_thresholds_start_at_equal_chances_and_stay_in_order():
    head = OrdinalHead(3, 4)
    np.testing.assert_allclose(head.thresholds().detach().sigmoid().numpy(), [0.25, 0.5, 0.75], atol=1e-3)
    with torch.no_grad():
        head.steps.fill_(-300.0)
    assert (head.thresholds().diff() > 0).all()


@pytest.mark.parametrize("form", ["ordinal", "responder"])
def test_a_responder_is_in_the_upper_half(form):
    task = Response(ResponseConfig(endpoint="response", form=form), DECLARED)
    outputs = torch.tensor([[2.0, 1.0, -1.0]]) if form == "ordinal" else torch.tensor([[1.0]])
    predicted = task.predict(outputs, np.array([""]))
    assert predicted["probability/responder"] == pytest.approx(1 / (1 + np.exp(-1)))
    if form == "ordinal":
        assert sum(predicted[f"probability/{name}"] for name in task.classes) == pytest.approx(1)
