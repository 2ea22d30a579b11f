"""Fits of linear models: what scikit-learn's predict, and the same to the last bit once written and read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.linear_model import LogisticRegression

from foundation.linear.fitted import Classes, Fitted, LogHazard, Number, OrderedClasses
from foundation.linear.learners import LEARNERS, LogisticLearner, OrdinalLearner, RidgeLearner

PATIENTS, WIDTH = 70, 6
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((PATIENTS, WIDTH))
LATENT = X[:, 0] - X[:, 3] + RANDOM.standard_normal(PATIENTS)
PARTS = {
    "subtype": {"code": np.digitize(LATENT, [-0.7, 0.7])},
    "response": {"code": np.digitize(LATENT, [-1, 0, 1])},
    "survival": {"time": np.exp(-LATENT), "event": RANDOM.integers(0, 2, PATIENTS)},
    "regression": {"value": LATENT},
}
EVERYBODY = np.arange(PATIENTS)


def fitted(kind: str) -> Fitted:
    return LEARNERS[kind](PARTS[kind], np.full(PATIENTS, ""), classes=5).fit(X, EVERYBODY, 1.0)


@pytest.mark.parametrize("kind", LEARNERS)
def test_read_back_it_predicts_the_same_to_the_last_bit(kind):
    before = fitted(kind)
    assert type(before) is LEARNERS[kind].fitted
    after = LEARNERS[kind].fitted.of(load(save(before.state())))
    for part, values in before(X).items():
        np.testing.assert_array_equal(after(X)[part], values)
        assert values.std(axis=0).max() > 0.01


def test_the_layout_of_arrays_changes_no_bit():
    weights = np.random.default_rng(1).standard_normal((40, 3))
    occurs, none = np.ones(3, dtype=bool), np.zeros(3)
    x = np.random.default_rng(2).standard_normal((50, 40))
    turned, straight = Classes(occurs, weights.T, none), Classes(occurs, weights.T.copy(), none)
    np.testing.assert_array_equal(turned(x)["probability"], straight(x)["probability"])
    assert turned.weights_JD.flags.c_contiguous
    kept = turned(x)["probability"].copy()
    weights[:] = 0
    np.testing.assert_array_equal(turned(x)["probability"], kept, err_msg="it must hold arrays of its own")


@pytest.mark.parametrize("edges", [[0.0], [-0.7, 0.7]], ids=["two classes", "three classes"])
def test_classes_are_predicted_as_scikit_learn_does(edges):
    code = np.digitize(LATENT, edges)
    mine = LogisticLearner({"code": code}, np.full(PATIENTS, "")).fit(X, EVERYBODY, 2.0)
    theirs = LogisticRegression(C=0.5, class_weight="balanced", max_iter=2000).fit(X, code)
    np.testing.assert_allclose(mine(X)["probability"], theirs.predict_proba(X), rtol=1e-12)


def test_a_class_that_training_lacks_has_no_probability_after_reading_either():
    code = np.where(LATENT > 0, 3, 1)
    for learner in (LogisticLearner, OrdinalLearner):
        before = learner({"code": code}, np.full(PATIENTS, ""), classes=5).fit(X, EVERYBODY, 1.0)
        probability = learner.fitted.of(load(save(before.state())))(X)["probability"]
        assert probability.shape == (PATIENTS, 5)
        assert not probability[:, [0, 2, 4]].any()
        np.testing.assert_allclose(probability.sum(axis=1), 1)
        assert np.corrcoef(probability[:, 3], code)[0, 1] > 0.5


@pytest.mark.parametrize("kind", LEARNERS)
def test_without_inputs_everybody_is_predicted_the_same(kind):
    nothing = np.zeros((PATIENTS, 0))
    learner = LEARNERS[kind](PARTS[kind], np.full(PATIENTS, ""))
    for penalty in learner.path(nothing, EVERYBODY, learner.penalties[-2:]):
        [values] = penalty(nothing).values()
        assert np.ptp(values, axis=0).max() == 0
        assert np.isfinite(values).all()
        if isinstance(learner, RidgeLearner):
            assert values[0] == pytest.approx(LATENT.mean())
        if learner.classes:
            assert values.sum(axis=1) == pytest.approx(1)


@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(-300, 300))
def test_probabilities_add_up_however_sure_a_model_is(seed, classes, size):
    random = np.random.default_rng(seed)
    occurs = np.append(random.random(classes) < 0.6, True)
    many = int(occurs.sum())
    x = random.standard_normal((4, 3))
    models = (
        Classes(occurs, size * random.standard_normal((many, 3)), random.standard_normal(many)),
        OrderedClasses(occurs, size * random.standard_normal(3), np.sort(random.standard_normal(many - 1))),
    )
    for model in models:
        probability = model(x)["probability"]
        assert (probability >= 0).all()
        np.testing.assert_allclose(probability.sum(axis=1), 1)
        assert not probability[:, ~occurs].any()


def test_an_array_that_is_missing_is_an_error():
    state = fitted("regression").state()
    assert Number.names() == list(state) == ["weights_D", "intercept"]
    del state["intercept"]
    with pytest.raises(KeyError, match="intercept"):
        Number.of(state)
    assert LogHazard.names() == ["weights_D"]
