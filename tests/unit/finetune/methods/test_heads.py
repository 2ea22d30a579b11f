"""A head starts where an independent solver of the same convex problem ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from finetune.methods.heads import Head, RidgeFit
from finetune.methods.penalties import COMMON, OFF
from finetune.methods.reading import Block
from finetune.tasks.base import Task, tasks
from foundation.linear.cox import fit_cox

PATIENTS, WIDTH = 120, 6
DECLARED = {
    "subtype": {"kind": "subtype", "classes": {"a": 0, "b": 0, "c": 0}},
    "os": {"kind": "survival", "unit": "days"},
    "age": {"kind": "regression"},
}
penalties = pytest.mark.parametrize("penalty", [COMMON[0], COMMON[4], COMMON[-1]])


@pytest.fixture
def x_NE() -> torch.Tensor:
    """Embeddings far from 0, all of one scale of which the first is the widest."""
    random = np.random.default_rng(3)
    return torch.from_numpy((7 + random.standard_normal((PATIENTS, WIDTH)) * [5, 1, 1, 1, 0.5, 2]).astype(np.float32))


@pytest.fixture
def truth(x_NE) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(4)
    score = (x_NE[:, 0] - 7).numpy() / 5 + random.standard_normal(PATIENTS)
    died, lost = random.exponential(np.exp(-score)), random.exponential(2, PATIENTS)
    code = np.searchsorted([-1.0, 0.5], score)
    code[::9] = -1
    time, event = np.minimum(died, lost), (died <= lost).astype(np.float64)
    time[::7] = event[::7] = np.nan
    value = 60 + 10 * score
    value[::5] = np.nan
    return {"subtype": {"code": code}, "os": {"time": time, "event": event}, "age": {"value": value}}


def start(task: str, endpoint: str, truth: dict, x_NE: torch.Tensor, penalty: float, **settings) -> tuple[Task, Head]:
    made = tasks.build(tasks[task].Config(endpoint=endpoint, **settings), DECLARED)
    groups = np.full(PATIENTS, "")
    made.fit(truth, groups)
    torch.manual_seed(0)
    head = Head(made, [Block("fused", WIDTH)])
    labels = {
        name: {part: torch.from_numpy(v if v.dtype == np.int64 else v.astype(np.float32)) for part, v in parts.items()}
        for name, parts in truth.items()
    }
    RidgeFit(head, x_NE, made.loss_of(labels, groups.tolist())).under({"fused": penalty})
    return made, head


def standard(x_NE: torch.Tensor) -> np.ndarray:
    """Centred, in one unit for all columns."""
    centred = x_NE.double().numpy() - x_NE.double().numpy().mean(axis=0)
    return centred / np.sqrt((centred**2).mean())


def said(head: Head, x_NE: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return head(x_NE).double().numpy()


@penalties
@pytest.mark.parametrize("balanced", [True, False])
def test_classes_start_at_logistic_regression(x_NE, truth, penalty, balanced):
    _, head = start("subtype", "subtype", truth, x_NE, penalty, balanced=balanced)
    code = truth["subtype"]["code"]
    known = code >= 0
    weights = "balanced" if balanced else None
    # There, the loss is summed over patients and weighed against half the squared weights.
    reference = LogisticRegression(C=1 / (penalty * known.sum()), class_weight=weights, max_iter=5000, tol=1e-8)
    reference.fit(standard(x_NE)[known], code[known])
    chance = torch.from_numpy(said(head, x_NE)).softmax(dim=1).numpy()
    # Sixty steps in single precision: a hundredth of what the classes differ by, and far below what a fold can tell.
    np.testing.assert_allclose(chance, reference.predict_proba(standard(x_NE)), atol=5e-3)


@penalties
def test_risks_start_at_ridge_cox(x_NE, truth, penalty):
    _, head = start("survival", "os", truth, x_NE, penalty)
    time, event = truth["os"]["time"], truth["os"]["event"]
    known = np.isfinite(time)
    # Without equal times, Breslow's rule there and Efron's here are the same.
    weights = fit_cox(standard(x_NE)[known], time[known], event[known], np.full(known.sum(), ""), penalty)
    np.testing.assert_allclose(said(head, x_NE)[:, 0], standard(x_NE) @ weights, atol=5e-3)


@penalties
def test_a_number_starts_at_ridge_regression(x_NE, truth, penalty):
    _, head = start("regression", "age", truth, x_NE, penalty)
    value = truth["age"]["value"]
    known = np.isfinite(value)
    standardised = (value[known] - value[known].mean()) / value[known].std()
    # The mean of squares and half the penalty, against the sum of squares and the penalty.
    reference = Ridge(alpha=penalty / 2 * known.sum()).fit(standard(x_NE)[known], standardised)
    np.testing.assert_allclose(said(head, x_NE)[:, 0], reference.predict(standard(x_NE)), atol=5e-3)


def test_where_it_comes_from_does_not_matter(x_NE, truth):
    """One head is started with one penalty after another."""
    task, head = start("subtype", "subtype", truth, x_NE, COMMON[-1])
    labels = {"subtype": {"code": torch.from_numpy(truth["subtype"]["code"])}}
    RidgeFit(head, x_NE, task.loss_of(labels, [""] * PATIENTS)).under({"fused": COMMON[2]})
    _, fresh = start("subtype", "subtype", truth, x_NE, COMMON[2])
    np.testing.assert_allclose(said(head, x_NE), said(fresh, x_NE), atol=5e-3)


@pytest.mark.parametrize(("task", "endpoint"), [("subtype", "subtype"), ("survival", "os")])
def test_nobody_to_learn_from_leaves_a_head_that_says_the_same_of_everybody(x_NE, truth, task, endpoint):
    parts = truth[endpoint]
    if task == "survival":
        parts["event"] = np.where(np.isfinite(parts["event"]), 0.0, np.nan)
    else:
        parts["code"] = np.where(np.arange(PATIENTS) == 1, 0, -1)
    _, head = start(task, endpoint, truth, x_NE, COMMON[0])
    outputs = said(head, x_NE)
    assert np.isfinite(outputs).all()
    assert np.ptp(outputs, axis=0).max() < 0.05


BLOCKS = [Block("fused", 3), Block("values", 2, single=True), Block("off", 1)]


def test_each_block_has_its_own_penalty_and_one_that_is_off_is_not_read(x_NE, truth):
    made = tasks.build(tasks["regression"].Config(endpoint="age"), DECLARED)
    made.fit(truth, np.full(PATIENTS, ""))
    head = Head(made, BLOCKS)
    value = truth["age"]["value"]
    labels = {"age": {"value": torch.from_numpy(value.astype(np.float32))}}
    fit = RidgeFit(head, x_NE, made.loss_of(labels, [""] * PATIENTS))
    fit.under({"fused": 3.0, "values": 1.0, "off": 0.1})
    fit.under({"fused": 0.3, "values": 0.01, "off": OFF})
    known = np.isfinite(value)
    centred = x_NE.double().numpy() - x_NE.double().numpy().mean(axis=0)
    # One scale for the first three columns, one for each of the next two; a penalty is a scale of its column too.
    scale = np.r_[[np.sqrt((centred[:, :3] ** 2).mean())] * 3, centred[:, 3:5].std(axis=0)]
    columns = centred[:, :5] / scale / np.sqrt([0.3, 0.3, 0.3, 0.01, 0.01])
    standardised = (value[known] - value[known].mean()) / value[known].std()
    reference = Ridge(alpha=known.sum() / 2).fit(columns[known], standardised)
    np.testing.assert_allclose(said(head, x_NE)[:, 0], reference.predict(columns), atol=5e-3)
    other = x_NE.clone()
    other[:, 5] = 1e6
    np.testing.assert_array_equal(said(head, other), said(head, x_NE))
    weights = head.inner.weight.detach().double().numpy()[0]
    assert weights[5] == 0
    assert head.ridge().item() == pytest.approx(([0.3] * 3 + [0.01] * 2) @ (weights[:5] ** 2) / 2, rel=1e-5)


def test_a_head_that_reads_much_learns_slowly_and_what_is_off_does_not_count():
    made = tasks.build(tasks["survival"].Config(endpoint="os"), DECLARED)
    head = Head(made, [Block("few", 4), Block("many", 96)])
    x_NE = torch.from_numpy(np.random.default_rng(5).standard_normal((PATIENTS, 100)).astype(np.float32))
    head.read(x_NE.std(dim=0), {"few": 0.1, "many": 0.1})
    assert head.pace == pytest.approx(0.1)
    head.read(x_NE.std(dim=0), {"few": 0.1, "many": OFF})
    assert head.pace == pytest.approx(0.5)


def test_a_block_that_says_the_same_of_everybody_does_not_vary_and_a_head_of_none_says_nothing(x_NE, truth):
    made = tasks.build(tasks["survival"].Config(endpoint="os"), DECLARED)
    made.fit(truth, np.full(PATIENTS, ""))
    labels = {"os": {part: torch.from_numpy(values.astype(np.float32)) for part, values in truth["os"].items()}}
    x_NE[:, 3:5] = 7.0
    fit = RidgeFit(Head(made, BLOCKS), x_NE, made.loss_of(labels, [""] * PATIENTS))
    assert fit.varying() == {"fused", "off"}
    fit.under({"fused": OFF, "values": 0.1, "off": OFF})
    assert not said(fit.head, x_NE).any()
    fit.under({"fused": 0.1, "values": 0.1, "off": OFF})
    assert said(fit.head, x_NE).std() > 0.1


def test_a_penalty_however_large_leaves_what_there_is_without_the_block(x_NE, truth):
    made = tasks.build(tasks["survival"].Config(endpoint="os"), DECLARED)
    made.fit(truth, np.full(PATIENTS, ""))
    labels = {"os": {part: torch.from_numpy(values.astype(np.float32)) for part, values in truth["os"].items()}}
    found = []
    for large in (1e9, OFF):
        head = Head(made, BLOCKS)
        fit = RidgeFit(head, x_NE, made.loss_of(labels, [""] * PATIENTS))
        fit.under({"fused": large, "values": 0.1, "off": OFF})
        found.append(said(head, x_NE))
    np.testing.assert_allclose(*found, atol=5e-3)
