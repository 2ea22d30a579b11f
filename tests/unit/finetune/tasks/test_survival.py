"""The survival task: its memory, baselines, times, competing risks, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.tasks.survival import Survival, SurvivalConfig
from foundation.errors import ConfigError
from foundation.metrics.survival_curves import kaplan_meier

DECLARED = {"os": {"kind": "survival", "unit": "days"}}
COMPETING = {"os": {"kind": "survival", "unit": "years", "causes": {"cancer": 1, "other": 1}}}
PATIENTS = 400


def build(declared=DECLARED, **settings):
    return Survival(SurvivalConfig(endpoint="os", **settings), declared)


def truth(random, causes=1):
    """Times in days or years whose hazard differs by group; nobody's risk is known."""
    groups = np.where(random.random(PATIENTS) < 0.4, "a", "b")
    time = np.ceil(random.exponential(np.where(groups == "a", 300, 1500)))
    censored = np.ceil(random.uniform(100, 3000, PATIENTS))
    event = np.where(time <= censored, random.integers(1, causes + 1, PATIENTS), 0).astype(float)
    return {"os": {"time": np.minimum(time, censored), "event": event}}, groups


def batch(time, event):
    return {"os": {"time": torch.tensor(time), "event": torch.tensor(event)}}


def test_those_of_earlier_batches_are_at_risk():
    task = build(memory=3)
    first = task.loss(torch.zeros(2, 1), batch([1.0, 2.0], [1.0, 0.0]), ["a", "a"])
    assert first.item() == pytest.approx(np.log(2))
    # The one of 2 days is still at risk at 2 days, but not the one of 1 day, nor anybody of another group.
    second = task.loss(torch.zeros(1, 1), batch([1.5], [1.0]), ["a"])
    assert second.item() == pytest.approx(np.log(2))
    assert task.loss(torch.zeros(1, 1), batch([0.5], [1.0]), ["b"]).item() == 0
    assert len(task.recent_time_B) == 3
    task.eval()
    task.loss(torch.zeros(1, 1), batch([9.0], [1.0]), ["a"])
    assert task.recent_time_B.tolist() == [2.0, 1.5, 0.5]


def test_memory_goes_on_where_it_was_saved():
    task = build(memory=3)
    task.loss(torch.zeros(2, 1), batch([1.0, 2.0], [1.0, 0.0]), ["a", "a"])
    again = build(memory=3)
    again.load_state_dict(task.state_dict())
    losses = [t.loss(torch.ones(1, 1), batch([1.5], [1.0]), ["a"]).item() for t in (task, again)]
    assert losses[0] == losses[1] > 0


def test_a_batch_without_an_event_contributes_nothing():
    task = build()
    outputs = torch.randn(3, 1, requires_grad=True)
    loss = task.loss(outputs, batch([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]), ["a", "a", "b"])
    loss.backward()
    assert loss == 0 and not outputs.grad.any()


@pytest.mark.parametrize("form", ["cox", "intervals"])
def test_without_knowledge_of_patients_each_group_has_its_own_curve(form):
    task = build(form=form)
    endpoints, groups = truth(np.random.default_rng(0))
    task.fit(endpoints, groups)
    outputs = torch.zeros(PATIENTS, *task.head(2)(torch.zeros(1, 2)).shape[1:])
    task.finish(outputs, endpoints, groups)
    predicted = task.predict(outputs, groups)
    for group in "ab":
        here = groups == group
        curve = kaplan_meier(endpoints["os"]["time"][here], endpoints["os"]["event"][here])
        told = [predicted[f"survival_probability/{at:g}"][here][0] for at in task.grid]
        np.testing.assert_allclose(told, curve.at(task.grid)[0], atol=0.03)
    everyone = kaplan_meier(endpoints["os"]["time"], endpoints["os"]["event"])
    elsewhere = task.predict(outputs[:1], np.array(["c"]))
    told = [elsewhere[f"survival_probability/{at:g}"][0] for at in task.grid]
    np.testing.assert_allclose(told, everyone.at(task.grid)[0], atol=0.03)


def test_nobody_is_remembered_in_what_is_published():
    task = build()
    endpoints, groups = truth(np.random.default_rng(0))
    task.fit(endpoints, groups)
    task.loss(torch.zeros(2, 1), batch([1.0, 2.0], [1.0, 0.0]), ["a", "a"])
    task.finish(torch.zeros(PATIENTS, 1), endpoints, groups)
    assert max(buffer.numel() for buffer in task.buffers()) == 3 * len(task.grid)


def test_columns_do_not_depend_on_the_training_patients():
    columns = []
    for seed in (0, 1):
        task = build(form="intervals", times=(200.0, 500.0))
        endpoints, groups = truth(np.random.default_rng(seed))
        task.fit(endpoints, groups)
        columns.append(list(task.predict(task.head(2)(torch.zeros(PATIENTS, 2)).detach(), groups)))
    assert columns[0] == columns[1]
    assert {"risk", "survival_probability/200", "survival_probability/500"} <= set(columns[0])


def test_competing_risks_are_told_apart():
    """Each kind of event depends on a feature of its own, and its risk finds that one."""
    random = np.random.default_rng(0)
    x = random.standard_normal((PATIENTS, 2))
    times = random.exponential(np.exp(-1.5 * x))
    censored = random.uniform(0.2, 4, PATIENTS)
    event = np.where(times.min(axis=1) < censored, times.argmin(axis=1) + 1, 0).astype(float)
    endpoints = {"os": {"time": np.minimum(times.min(axis=1), censored), "event": event}}
    groups = np.full(PATIENTS, "")
    task = build(COMPETING, form="intervals", intervals=5)
    task.fit(endpoints, groups)
    torch.manual_seed(0)
    head = task.head(2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    labels = {"os": {part: torch.from_numpy(values) for part, values in endpoints["os"].items()}}
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(head(torch.from_numpy(x).float()), labels, list(groups)).backward()
        optimizer.step()
    predicted = task.predict(head(torch.from_numpy(x).float()).detach(), groups)
    assert np.corrcoef(predicted["risk/cancer"], x[:, 0])[0, 1] > 0.5
    assert np.corrcoef(predicted["risk/cancer"], x[:, 1])[0, 1] < 0
    assert np.corrcoef(predicted["risk/other"], x[:, 1])[0, 1] > 0.5
    found = {
        name: score(np.ones((1, PATIENTS)))[0] for name, score in task.metrics(endpoints, predicted, groups).items()
    }
    assert found["c_index"] == pytest.approx((found["c_index/cancer"] + found["c_index/other"]) / 2)
    assert min(found["c_index/cancer"], found["uno_c/other"]) > 0.7
    assert len(task.figures(endpoints, predicted, groups)) == 5


def test_times_that_nobody_was_watched_beyond_are_not_told():
    task = build(times=(100.0, 5000.0))
    endpoints, groups = truth(np.random.default_rng(0))
    endpoints["os"]["event"][endpoints["os"]["time"].argmax()] = 0
    task.fit(endpoints, groups)
    task.finish(torch.zeros(PATIENTS, 1), endpoints, groups)
    predicted = task.predict(torch.zeros(PATIENTS, 1), groups)
    names = task.metrics(endpoints, predicted, groups)
    assert "brier/100" in names and "integrated_brier" in names
    assert "brier/5000" not in names
    found = task.calibration(endpoints, predicted, groups, groups)
    assert list(found.counts) == ["100"] and found.p_values.keys() == {"d_calibration", "one_calibration/100"}
    assert found.p_values["d_calibration"] > 0.05, "each group is predicted as it is"
    assert np.isnan(found.scores["calibration_slope"](np.ones((1, PATIENTS)))).all(), "everybody is predicted the same"


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="2 kinds of event"):
        build(COMPETING)
    with pytest.raises(ConfigError, match="must be above 0"):
        build(times=(0.0,))
