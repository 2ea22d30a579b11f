"""What every registered task must do; found through the registry, built with `tiny()` in each of its forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import finetune.tasks  # noqa: F401  registers them
from finetune.tasks.base import IDEAL, LOWER_IS_BETTER, tasks
from finetune.uncertainty.base import Known
from finetune.uncertainty.of_task import learn, predictions, restored, states
from foundation.errors import ConfigError

PATIENTS, WIDTH = 120, 6
ONE = np.ones((1, PATIENTS))
DECLARED = {
    "subtype": {"kind": "subtype", "classes": {"a": 1, "b": 1, "c": 1}},
    "response": {"kind": "response", "classes": {"PD": 1, "SD": 1, "PR": 1, "CR": 1}},
    "survival": {"kind": "survival", "unit": "days"},
    "regression": {"kind": "regression", "unit": "µM"},
    "binary": {"kind": "subtype", "classes": {"wildtype": 1, "mutant": 1}},
    "binary_2": {"kind": "subtype", "classes": {"no": 1, "yes": 1}},
}


def forms(name):
    """The tiny config in each of its forms, where it has several."""
    config = tasks[name].tiny()
    field = type(config).model_fields.get("form")
    choices = getattr(field.annotation, "__args__", ()) if field else (None,)
    return [config if choice is None else config.model_copy(update={"form": choice}) for choice in choices]


CONFIGS = [config for name in tasks.names() for config in forms(name)]
every_task = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.task}-{getattr(c, 'form', '')}".strip("-"))


def cohort(missing=0.2):
    """Embeddings [N, D], endpoints that are functions of them, missing at random, and groups."""
    random = np.random.default_rng(0)
    x = random.standard_normal((PATIENTS, WIDTH))

    def code(score, classes):
        return np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))

    # Nearly no chance is left to the time: the order of the patients is that of their third feature.
    time = np.round(700 * np.exp(-0.8 * x[:, 2])) + 1
    censored = random.random(PATIENTS) < 0.25
    endpoints = {
        "subtype": {"code": np.argmax(x[:, :3], axis=1)},
        "response": {"code": code(x[:, 1], 4)},
        "binary": {"code": code(x[:, 3], 2)},
        "binary_2": {"code": code(x[:, 4], 2)},
        "survival": {"time": np.where(censored, np.floor(0.8 * time), time), "event": 1.0 - censored},
        "regression": {"value": 20 + 5 * x[:, 0]},
    }
    for parts in endpoints.values():
        gone = random.random(PATIENTS) < missing
        for part, values in parts.items():
            values[gone] = -1 if part == "code" else np.nan
    groups = random.choice(["glioma", "lung"], PATIENTS)
    return x, endpoints, groups


def as_batch(endpoints):
    return {
        name: {p: torch.from_numpy(v if p == "code" else v.astype(np.float32)) for p, v in parts.items()}
        for name, parts in endpoints.items()
    }


def build(config, *, fitted=True):
    torch.manual_seed(0)
    task = tasks.build(config, DECLARED)
    if fitted:
        _, endpoints, groups = cohort()
        task.fit(endpoints, groups)
    return task


def evaluate(task, outputs, endpoints, groups):
    outputs = outputs.clone().requires_grad_()
    loss = task.loss(outputs, as_batch(endpoints), list(groups))
    (gradient,) = torch.autograd.grad(loss, outputs)
    return loss, gradient


def at_rest(config):
    """A fitted task that remembers nobody between calls, and outputs of its head."""
    task = build(config).eval()
    x, endpoints, groups = cohort()
    return task, task.head(WIDTH)(torch.from_numpy(x).float()).detach(), endpoints, groups


@pytest.fixture(scope="module")
def trained():
    """Config to a task, and what it says of the patients that it was trained on and of the same, exchanged."""
    found = {}
    for config in CONFIGS:
        task = build(config)
        x, endpoints, groups = cohort()
        x = torch.from_numpy(x).float()
        head = task.head(WIDTH)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            task.loss(head(x), as_batch(endpoints), list(groups)).backward()
            optimizer.step()
        outputs = head(x).detach()
        task.finish(outputs, endpoints, groups)
        order = np.random.default_rng(1).permutation(PATIENTS)
        found[config] = task, outputs, task.predict(outputs, groups), task.predict(outputs[order], groups)
    return found


@every_task
def test_loss_is_a_finite_scalar_above_zero(config):
    loss, gradient = evaluate(*at_rest(config))
    assert loss.shape == () and loss.isfinite() and loss > 0
    assert gradient.isfinite().all()


@every_task
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e20])
def test_those_without_a_label_change_no_bit(config, garbage):
    task, outputs, endpoints, groups = at_rest(config)
    labelled = torch.from_numpy(task.labelled(endpoints))
    loss, gradient = evaluate(task, outputs, endpoints, groups)
    spoilt = outputs.clone()
    spoilt[~labelled] = garbage
    again, of_spoilt = evaluate(task, spoilt, endpoints, groups)
    assert torch.equal(loss, again) and torch.equal(gradient, of_spoilt)
    assert not gradient[~labelled].any() and (~labelled).any()
    rest = {name: {p: v[labelled.numpy()] for p, v in parts.items()} for name, parts in endpoints.items()}
    alone, of_alone = evaluate(task, outputs[labelled], rest, groups[labelled.numpy()])
    assert torch.equal(loss, alone) and torch.equal(gradient[labelled], of_alone)


@every_task
def test_order_of_patients_does_not_change_the_loss(config):
    task, outputs, endpoints, groups = at_rest(config)
    order = np.random.default_rng(2).permutation(PATIENTS)
    other = {name: {p: v[order] for p, v in parts.items()} for name, parts in endpoints.items()}
    one, of_one = evaluate(task, outputs, endpoints, groups)
    two, of_two = evaluate(task, outputs[torch.from_numpy(order)], other, groups[order])
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(of_one[torch.from_numpy(order)], of_two, rtol=1e-4, atol=1e-6)


@every_task
def test_gradient_reaches_every_parameter_of_the_head(config):
    task = build(config)
    x, endpoints, groups = cohort()
    head = task.head(WIDTH)
    task.loss(head(torch.from_numpy(x).float()), as_batch(endpoints), list(groups)).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_task
def test_a_batch_without_labels_has_no_loss_and_stays_in_the_graph(config):
    task = build(config)
    x, endpoints, groups = cohort(missing=1.1)
    outputs = task.head(WIDTH)(torch.from_numpy(x).float()).detach()
    assert not task.labelled(endpoints).any()
    assert (task.strata(endpoints) == -1).all()
    loss, gradient = evaluate(task, outputs, endpoints, groups)
    assert loss == 0 and loss.requires_grad and not gradient.any()


@every_task
@pytest.mark.parametrize("missing", [0.2, 1.1])
def test_patients_who_are_told_once_have_the_loss_of_any_outputs(config, missing):
    task, outputs, *_ = at_rest(config)
    _, endpoints, groups = cohort(missing)
    of_outputs = task.loss_of(as_batch(endpoints), list(groups))
    for each in (outputs, 3 * outputs + 1):
        told = each.clone().requires_grad_()
        loss = of_outputs(told)
        wanted, slope = evaluate(task, each, endpoints, groups)
        torch.testing.assert_close(loss, wanted)
        torch.testing.assert_close(torch.autograd.grad(loss, told)[0], slope, rtol=1e-4, atol=1e-7)


@every_task
def test_bf16_outputs_have_the_loss_of_single_precision(config):
    task, outputs, endpoints, groups = at_rest(config)
    rough = outputs.bfloat16()
    loss, _ = evaluate(task, rough, endpoints, groups)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, evaluate(task, rough.float(), endpoints, groups)[0])


@every_task
def test_strata_are_those_of_the_labelled(config):
    task = build(config)
    _, endpoints, _ = cohort()
    strata = task.strata(endpoints)
    assert np.issubdtype(strata.dtype, np.integer)
    assert np.array_equal(strata >= 0, task.labelled(endpoints))
    assert len(np.unique(strata)) > 2


@every_task
def test_a_perfect_prediction_is_the_best_and_a_shuffled_one_near_chance(trained, config):
    task, _, predicted, shuffled = trained[config]
    _, endpoints, groups = cohort()
    found, by_chance = (
        task.metrics(endpoints, columns, groups)[task.primary](ONE)[0] for columns in (predicted, shuffled)
    )
    assert found > 0.97
    assert abs(by_chance - task.chance) < 0.15 or by_chance < task.chance
    for name, score in task.metrics(endpoints, predicted, groups).items():
        other = task.metrics(endpoints, shuffled, groups)[name]
        lower = name.split("/")[0] in LOWER_IS_BETTER
        assert (score(ONE)[0] < other(ONE)[0]) == lower, name


@every_task
def test_measures_are_over_all_patients_and_see_only_the_labelled(trained, config):
    task, _, predicted, _ = trained[config]
    _, endpoints, groups = cohort()
    unlabelled = ~task.labelled(endpoints)
    spoilt = {name: np.where(unlabelled, np.nan, values) for name, values in predicted.items()}
    weights = np.random.default_rng(0).multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=4).astype(float)
    other = weights + 3 * unlabelled
    for name, score in task.metrics(endpoints, predicted, groups).items():
        again = task.metrics(endpoints, spoilt, groups)[name]
        assert score(weights).shape == (4,)
        np.testing.assert_array_equal(score(weights), again(other))


@every_task
def test_calibration_sees_only_the_labelled_and_worsens_where_patients_are_exchanged(trained, config):
    task, _, predicted, shuffled = trained[config]
    _, endpoints, groups = cohort()
    folds = np.where(np.arange(PATIENTS) % 2, "0", "1")
    unlabelled = ~task.labelled(endpoints)
    spoilt = {name: np.where(unlabelled, np.nan, values) for name, values in predicted.items()}
    found, again, other = (task.calibration(endpoints, p, groups, folds) for p in (predicted, spoilt, shuffled))
    assert {name.split("/")[0] for name in found.scores} <= {*IDEAL, *LOWER_IS_BETTER} and found.counts
    assert (found.p_values, found.counts) == (again.p_values, again.counts)
    weights = np.random.default_rng(0).multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=4).astype(float)
    for name, score in found.scores.items():
        assert score(weights).shape == (4,)
        np.testing.assert_array_equal(score(weights), again.scores[name](weights + 3 * unlabelled))
    slopes = [name for name in other.scores if name.startswith("calibration_slope")]
    assert slopes and all(abs(other.scores[name](ONE)[0]) < 0.5 for name in slopes), "nothing is known of anybody"


@every_task
def test_figures_say_what_they_show_and_are_the_same_each_time(trained, config):
    task, _, predicted, _ = trained[config]
    _, endpoints, groups = cohort()
    pictures = task.figures(endpoints, predicted, groups)
    assert pictures and all(p.alt and p.title and p.data.startswith(b"<?xml") for p in pictures)
    assert pictures == task.figures(endpoints, predicted, groups)


@every_task
def test_saved_and_loaded_is_the_same(trained, config, tmp_path):
    task, outputs, predicted, _ = trained[config]
    _, endpoints, groups = cohort()
    save_file(task.state_dict(), tmp_path / "task.safetensors")
    again = build(config, fitted=False)
    again.load_state_dict(load_file(tmp_path / "task.safetensors"))
    for name, values in again.predict(outputs, groups).items():
        np.testing.assert_array_equal(values, predicted[name])
    assert torch.equal(*(one.eval().loss(outputs, as_batch(endpoints), list(groups)) for one in (task, again)))


@every_task
def test_an_endpoint_that_is_not_there_or_of_another_kind_is_refused(config):
    with pytest.raises(ConfigError, match="no such endpoint"):
        tasks.build(config, {})
    with pytest.raises(ConfigError, match="is of kind elsewhere"):
        tasks.build(config, {name: {"kind": "elsewhere"} for name in DECLARED})


@every_task
def test_what_a_linear_model_predicts_is_told_as_outputs_that_predict_the_same(config):
    """Probabilities and numbers come back; log hazards are those that were said."""
    task = build(config)
    random = np.random.default_rng(4)
    predicted = {}
    for name in task.endpoints:
        classes = DECLARED[name].get("classes")
        if classes:
            predicted[name] = {"probability": random.dirichlet(np.ones(len(classes)), PATIENTS)}
        elif DECLARED[name]["kind"] == "survival":
            predicted[name] = {"risk": random.standard_normal(PATIENTS)}
        else:
            predicted[name] = {"value": 20 + random.standard_normal(PATIENTS)}
    _, endpoints, groups = cohort()
    outputs = task.outputs_of(predicted)
    assert outputs.dtype == torch.float64
    assert outputs.shape == task.head(WIDTH)(torch.zeros(PATIENTS, WIDTH)).shape
    assert torch.isfinite(task.loss(outputs, as_batch(endpoints), groups.tolist()))
    task.finish(outputs, endpoints, groups)
    found = task.predict(outputs, groups)
    for name, parts in predicted.items():
        if "value" in parts:
            np.testing.assert_allclose(found["value"], parts["value"])
        elif "risk" in parts:
            # Those of higher hazard are at higher risk, within a group.
            for group in np.unique(groups):
                order = np.argsort(parts["risk"][groups == group])
                assert (np.diff(found["risk"][groups == group][order]) > 0).all()
        elif len(task.endpoints) > 1:
            np.testing.assert_allclose(found[f"probability/{name}"], parts["probability"][:, 1])
        else:
            columns = [f"probability/{each}" for each in DECLARED[name]["classes"]]
            told = np.stack([found[each] for each in columns if each in found], axis=1) if columns[0] in found else None
            upper = parts["probability"][:, len(columns) // 2 :].sum(axis=1)
            np.testing.assert_allclose(found.get("probability/responder", upper), upper, rtol=1e-6)
            if told is not None:
                np.testing.assert_allclose(told, parts["probability"], rtol=1e-6)


@every_task
def test_scores_are_linear_in_outputs_and_more_is_more_of_what_is_predicted(trained, config):
    task, outputs, before, _ = trained[config]
    other = outputs.flip(0)
    together, apart = task.scores(2 * outputs + 3 * other), (task.scores(outputs), task.scores(other))
    for name, score_N in together.items():
        assert score_N.shape == (PATIENTS,)
        torch.testing.assert_close(score_N, 2 * apart[0][name] + 3 * apart[1][name])
        moved = outputs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(task.scores(moved)[name].sum(), moved)
        column = name if name in before else f"probability/{name}"
        after = task.predict(outputs + 1e-2 * slope, cohort()[2])
        assert (after[column] - before[column]).min() >= -1e-7 and (after[column] > before[column]).mean() > 0.9


@every_task
def test_what_is_uncertain_is_told_beside_predictions_and_is_stored(trained, config):
    task, outputs, before, _ = trained[config]
    _, truth, groups = cohort()
    patterns = np.full(PATIENTS, "mri+rna", dtype=object)
    uncertain = learn(task, outputs, Known({}, truth, patterns, np.arange(PATIENTS) % 3), groups)
    told = predictions(task, uncertain, outputs, groups, patterns)
    assert {f"{task.name}/{column}" for column in before} < told.keys()
    stored = {key: np.array(values) for key, values in states(uncertain).items()}
    again = predictions(task, restored(task, stored), outputs, groups, patterns)
    assert again.keys() == told.keys()
    for column, values in told.items():
        assert len(values) == PATIENTS
        np.testing.assert_array_equal(again[column], values)
    own = {column.removeprefix(f"{task.name}/"): values for column, values in told.items()}
    for one in uncertain:
        # Of the patients who were learned from, as many as was asked for, and one more or less.
        share = one.coverage(own, truth)(ONE)[0]
        assert 0.88 < share <= 1
        assert one.coverage({}, truth) is None
