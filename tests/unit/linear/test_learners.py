"""The linear learners of each kind of endpoint, against sklearn and along their path of penalties."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.utils.class_weight import compute_sample_weight

from foundation.linear.cox import fit_cox, partial_likelihood
from foundation.linear.learners import LEARNERS, CoxLearner, LogisticLearner, OrdinalLearner, RidgeLearner

PATIENTS = 90
ROWS = np.random.default_rng(1).permutation(PATIENTS)[:60]
HELD_OUT = np.arange(60) % 3 == 0


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """Inputs of the rows."""
    return np.random.default_rng(0).standard_normal((PATIENTS, 5))[ROWS]


def learner(kind: str):
    """A learner of outcomes that the first two inputs decide in part."""
    random = np.random.default_rng(0)
    x = random.standard_normal((PATIENTS, 5))
    latent = x[:, 0] + 0.5 * x[:, 1] + random.standard_normal(PATIENTS)
    parts = {
        "subtype": {"code": np.digitize(latent, [-1.2, 0.3])},
        "response": {"code": np.digitize(latent, [-1, 0, 1])},
        "survival": {"time": np.ceil(9 * np.exp(-latent)), "event": random.integers(0, 2, PATIENTS)},
        "regression": {"value": latent},
    }
    return LEARNERS[kind](parts[kind], np.arange(PATIENTS) % 2)


@pytest.mark.parametrize("kind", LEARNERS)
def test_penalties_begin_with_the_most_cautious(kind):
    penalties = LEARNERS[kind].penalties
    assert list(penalties) == sorted(penalties, reverse=True)
    assert min(penalties) > 0


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_path_holds_what_each_penalty_gives_by_itself(kind, inputs):
    one = learner(kind)
    # All at once: a fit must not be changed by those after it.
    path = list(one.path(inputs, ROWS, one.penalties))
    for predict, penalty in zip(path, one.penalties, strict=True):
        alone = one.fit(inputs, ROWS, penalty)(inputs)
        for part, values in predict(inputs).items():
            # A search for logistic weights stops at a slope of 1e-4, wherever it began.
            np.testing.assert_allclose(values, alone[part], atol=2e-3 if kind == "subtype" else 1e-4)
    first, last = (next(iter(predict(inputs).values())) for predict in (path[0], path[-1]))
    assert last.std(axis=0).max() > 2 * first.std(axis=0).max()


def test_classes_are_those_of_sklearn_and_each_weighs_the_same(inputs):
    one = learner("subtype")
    code, fitted = one.parts["code"][ROWS], ~HELD_OUT
    model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=2000).fit(
        inputs[fitted], code[fitted]
    )
    predict = one.fit(inputs[fitted], ROWS[fitted], 10.0)
    expected = model.predict_proba(inputs)
    np.testing.assert_allclose(predict(inputs)["probability"], expected, atol=1e-3)
    weights = compute_sample_weight("balanced", code[HELD_OUT])
    assert len(np.unique(np.bincount(code[HELD_OUT]))) > 1
    assert one.cv_log_likelihood(predict, inputs, ROWS, HELD_OUT) == pytest.approx(
        -log_loss(code[HELD_OUT], expected[HELD_OUT], sample_weight=weights), abs=1e-3
    )


def test_classes_that_are_not_balanced_are_those_of_sklearn_and_each_patient_weighs_the_same(inputs):
    code = learner("subtype").parts["code"]
    one = LogisticLearner({"code": code}, np.full(len(code), ""), balanced=False)
    fitted = ~HELD_OUT
    model = LogisticRegression(C=0.1, tol=1e-8, max_iter=2000).fit(inputs[fitted], code[ROWS][fitted])
    predict = one.fit(inputs[fitted], ROWS[fitted], 10.0)
    expected = model.predict_proba(inputs)
    np.testing.assert_allclose(predict(inputs)["probability"], expected, atol=1e-3)
    found = one.cv_log_likelihood(predict, inputs, ROWS, HELD_OUT)
    assert found == pytest.approx(-log_loss(code[ROWS][HELD_OUT], expected[HELD_OUT]), abs=1e-3)


def test_ordered_classes_lie_in_one_direction(inputs):
    one = learner("response")
    predict = one.fit(inputs, ROWS, 0.01)
    probability = predict(inputs)["probability"]
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    under = np.log(probability.cumsum(axis=1)[:, :3])
    odds = under - np.log1p(-np.exp(under))
    # Cumulative log odds of any two patients differ by the same, whichever classes are added up.
    np.testing.assert_allclose(odds - odds[0], (odds - odds[0])[:, :1].repeat(3, axis=1), atol=1e-6)
    assert isinstance(one, OrdinalLearner)


def test_risks_are_those_of_ridge_cox_and_count_what_held_out_patients_add(inputs):
    one = learner("survival")
    time, event = (one.parts[part][ROWS] for part in ("time", "event"))
    groups, fitted = one.groups[ROWS], ~HELD_OUT
    predict = one.fit(inputs[fitted], ROWS[fitted], 0.1)
    risk = inputs @ fit_cox(inputs[fitted], time[fitted], event[fitted], groups[fitted], 0.1)
    np.testing.assert_allclose(predict(inputs)["risk"], risk)
    of_fitted = partial_likelihood(risk[fitted], time[fitted], event[fitted], groups[fitted])
    assert one.cv_log_likelihood(predict, inputs, ROWS, HELD_OUT) == pytest.approx(
        partial_likelihood(risk, time, event, groups) - of_fitted
    )


def test_without_an_event_risks_are_equal(inputs):
    quiet = CoxLearner({"time": np.arange(90.0), "event": np.zeros(90)}, np.full(90, ""))
    assert [predict(inputs)["risk"].tolist() for predict in quiet.path(inputs, ROWS, (1.0, 0.1))] == [[0.0] * 60] * 2


def test_numbers_are_those_of_sklearn(inputs):
    one = learner("regression")
    value, fitted = one.parts["value"][ROWS], ~HELD_OUT
    model = Ridge(alpha=10.0).fit(inputs[fitted], value[fitted])
    predict = one.fit(inputs[fitted], ROWS[fitted], 10.0)
    np.testing.assert_allclose(predict(inputs)["value"], model.predict(inputs))
    assert one.cv_log_likelihood(predict, inputs, ROWS, HELD_OUT) == pytest.approx(
        -mean_squared_error(value[HELD_OUT], model.predict(inputs[HELD_OUT]))
    )
    assert isinstance(one, RidgeLearner)


@pytest.mark.parametrize("kind", [LogisticLearner, OrdinalLearner])
def test_a_class_that_nobody_in_training_has_gets_no_probability(kind):
    one = kind({"code": np.array([0, 0, 2, 2, 1])}, np.full(5, ""))
    x = np.array([[0.0], [1], [2], [3], [1]])
    predict = one.fit(x[:4], np.arange(4), 0.1)
    probability = predict(x)["probability"]
    assert probability[:, 1].tolist() == [0] * 5
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    alone = one.fit(x[:2], np.arange(2), 0.1)(x)["probability"]
    assert alone.tolist() == [[1, 0, 0]] * 5
    assert np.isfinite(one.cv_log_likelihood(predict, x, np.arange(5), np.arange(5) == 4))


@pytest.mark.parametrize("kind", [LogisticLearner, OrdinalLearner])
def test_the_last_class_is_there_though_nobody_has_it(kind):
    one = kind({"code": np.array([0, 0, 1, 1])}, np.full(4, ""), classes=3)
    x = np.array([[0.0], [1], [2], [3]])
    probability = one.fit(x, np.arange(4), 0.1)(x)["probability"]
    assert probability.shape == (4, 3)
    assert probability[:, 2].tolist() == [0] * 4
