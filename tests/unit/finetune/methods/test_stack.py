"""Weights of a stack against independent fits, and the choice between one method and a stack of several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize

import finetune.tasks  # noqa: F401  registers them
from finetune.methods.stack import PENALTIES, STACK, InnerFold, choose, fit_weights
from finetune.tasks.base import tasks
from foundation.linear.cox import partial_likelihood

DECLARED = {
    "number": {"kind": "regression", "unit": ""},
    "os": {"kind": "survival", "unit": "days"},
    "class": {"kind": "subtype", "classes": {"a": 1, "b": 1, "c": 1}},
    "response": {"kind": "response", "classes": {"PD": 1, "SD": 1, "PR": 1, "CR": 1}},
}


def task(config):
    return tasks.build(tasks[config["task"]].Config.model_validate(config), DECLARED)


def numbers(seed, methods=3, patients=40, folds=2):
    """Inner folds of a number that the first method knows best, and the last not at all."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(folds):
        truth = random.standard_normal(patients)
        noise = np.linspace(0.3, 2, methods)
        said = {
            f"method {m}": (m < methods - 1) * truth + noise[m] * random.standard_normal(patients)
            for m in range(methods)
        }
        outputs = {name: torch.from_numpy(values)[:, None] for name, values in said.items()}
        found.append(InnerFold(outputs, {"number": {"value": torch.from_numpy(truth)}}, [""] * patients))
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(PENALTIES), st.integers(1, 4))
def test_weights_are_those_of_least_squares_that_are_not_negative(seed, penalty, methods):
    folds = numbers(seed, methods)
    found = fit_weights(task({"task": "regression", "endpoint": "number"}), folds, list(folds[0].outputs), penalty)
    x_NM = np.concatenate([torch.cat([*fold.outputs.values()], dim=1).numpy() for fold in folds])
    y_N = np.concatenate([fold.labels["number"]["value"].numpy() for fold in folds])
    # Folds of one size: the mean of their means is the mean of all. The penalty is a row for each weight.
    rows = np.sqrt(penalty / 2) * np.eye(methods)
    a = np.concatenate([x_NM / np.sqrt(len(x_NM)), rows])
    b = np.concatenate([y_N / np.sqrt(len(x_NM)), rows @ np.full(methods, 1 / methods)])
    np.testing.assert_allclose(list(found.values()), lsq_linear(a, b, bounds=(0, np.inf), tol=1e-12).x, atol=2e-4)


def survival(seed=0, folds=3, patients=60, shift=0.0):
    random = np.random.default_rng(seed)
    found = []
    for k in range(folds):
        risk = random.standard_normal(patients)
        time, lost = random.exponential(900 * np.exp(-risk)), random.exponential(1500, patients)
        # What one fold's models say may stand anywhere: only differences within a fold count.
        said = {"half": 0.5 * risk + k * shift, "noise": random.standard_normal(patients)}
        outputs = {name: torch.from_numpy(values)[:, None] for name, values in said.items()}
        labels = {
            "os": {"time": torch.from_numpy(np.minimum(time, lost)), "event": torch.from_numpy(1.0 * (time <= lost))}
        }
        found.append(InnerFold(outputs, labels, [""] * patients))
    return found


def test_weights_of_log_hazards_are_those_of_a_cox_model_of_them_with_a_stratum_for_each_fold():
    folds = survival()
    cox = task({"task": "survival", "endpoint": "os"})
    found = fit_weights(cox, folds, ["half", "noise"], 0.01)
    assert fit_weights(cox, survival(shift=5.0), ["half", "noise"], 0.01) == pytest.approx(found, abs=1e-4)

    def loss(weights):
        each = []
        for fold in folds:
            risk = np.column_stack([output[:, 0].numpy() for output in fold.outputs.values()]) @ weights
            time, event = (fold.labels["os"][part].numpy() for part in ("time", "event"))
            each.append(-partial_likelihood(risk, time, event, np.full(len(risk), "")) / event.sum())
        return np.mean(each) + 0.005 * np.sum((weights - 0.5) ** 2)

    expected = minimize(loss, [0.5, 0.5], bounds=[(0, None)] * 2).x
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-3)
    # Half of the log hazard was said, so that twice of it is right.
    assert found["half"] == pytest.approx(2, abs=0.4) and found["noise"] < 0.15


def test_two_who_each_know_a_half_are_stacked_and_one_who_knows_all_is_kept_alone():
    random = np.random.default_rng(1)
    regression = task({"task": "regression", "endpoint": "number"})

    def folds(say):
        found = []
        for _ in range(3):
            first, second = random.standard_normal((2, 150))
            said = {name: torch.from_numpy(values)[:, None] for name, values in say(first, second).items()}
            found.append(InnerFold(said, {"number": {"value": torch.from_numpy(first + second)}}, [""] * 150))
        return found

    halves = choose(regression, folds(lambda a, b: {"one": a, "other": b}))
    assert halves.weights == pytest.approx({"one": 1, "other": 1}, abs=0.05)
    assert max(halves.cv_log_likelihood, key=lambda name: halves.cv_log_likelihood[name]) == STACK
    alone = choose(regression, folds(lambda a, b: {"noise": random.standard_normal(150), "all": a + b}))
    assert alone.weights == pytest.approx({"all": 1}, abs=0.05)
    assert choose(regression, folds(lambda a, b: {"all": a + b})).cv_log_likelihood.keys() == {"all"}


def test_a_gain_that_may_be_chance_does_not_stack():
    """The first method knows nearly all: among so few patients many draws favour the stack; half of them by chance."""
    regression = task({"task": "regression", "endpoint": "number"})
    favoured = taken = 0
    for seed in range(30):
        found = choose(regression, numbers(seed, methods=3, patients=15, folds=5))
        alone = max(value for name, value in found.cv_log_likelihood.items() if name != STACK)
        favoured += found.cv_log_likelihood[STACK] > alone
        taken += len(found.weights) > 1
    assert favoured >= 12 and taken <= 0.6 * favoured


def test_what_is_judged_on_a_fold_was_learned_on_the_others():
    """With noise alone, weights that saw the fold itself would look better than no weights at all."""
    random = np.random.default_rng(3)
    regression = task({"task": "regression", "endpoint": "number"})
    folds = []
    for _ in range(2):
        truth, *said = random.standard_normal((9, 12))
        outputs = {f"noise {m}": torch.from_numpy(values)[:, None] for m, values in enumerate(said)}
        folds.append(InnerFold(outputs, {"number": {"value": torch.from_numpy(truth)}}, [""] * 12))
    value = choose(regression, folds).cv_log_likelihood[STACK]
    weights = fit_weights(regression, folds, list(folds[0].outputs), PENALTIES[-1])
    learned = torch.tensor([*weights.values()], dtype=torch.float64)
    seen = [
        -float((torch.cat([*fold.outputs.values()], 1) @ learned - fold.labels["number"]["value"]).square().mean())
        for fold in folds
    ]
    assert value < np.mean(seen)


@pytest.mark.parametrize(
    "config", [{"task": "subtype", "endpoint": "class"}, {"task": "response", "endpoint": "response"}]
)
def test_a_sure_method_that_is_wrong_is_made_less_sure(config):
    random = np.random.default_rng(5)
    built = task(config)
    classes = len(DECLARED[config["endpoint"]]["classes"])
    folds = []
    for _ in range(2):
        code = random.integers(classes, size=80)
        guess = np.where(random.random(80) < 0.5, code, random.integers(classes, size=80))
        probability = np.full((80, classes), 0.001) + np.eye(classes)[guess]
        outputs = built.outputs_of(
            {config["endpoint"]: {"probability": probability / probability.sum(1, keepdims=True)}}
        )
        folds.append(InnerFold({"sure": outputs}, {config["endpoint"]: {"code": torch.from_numpy(code)}}, [""] * 80))
    kept = choose(built, folds)
    assert 0.05 < kept.weights["sure"] < 0.6
    assert float(built.loss(kept.outputs(folds[0].outputs), folds[0].labels, folds[0].groups)) < float(
        built.loss(folds[0].outputs["sure"], folds[0].labels, folds[0].groups)
    )


def test_who_says_the_same_as_another_is_not_asked_twice():
    folds = numbers(0, methods=2)
    twice = [InnerFold({**f.outputs, "again": f.outputs["method 0"].clone()}, f.labels, f.groups) for f in folds]
    regression = task({"task": "regression", "endpoint": "number"})
    assert choose(regression, twice) == choose(regression, folds)
