"""The ordinal model, against logistic regression and a search without gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from foundation.linear.ordinal import class_probabilities, fit_proportional_odds


def planted(seed: int, classes: int, patients: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((patients, 4))
    latent = x @ [1.5, -0.5, 0, 0] + random.logistic(size=patients)
    return x, np.searchsorted(np.quantile(latent, np.arange(1, classes) / classes), latent)


def test_two_classes_are_logistic_regression():
    x, code = planted(0, 2)
    weights, cuts = fit_proportional_odds(x, code, 0.1)
    model = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-10).fit(x, code)
    assert weights == pytest.approx(model.coef_[0], abs=1e-4)
    assert cuts == pytest.approx(-model.intercept_, abs=1e-4)
    np.testing.assert_allclose(class_probabilities(x @ weights, cuts), model.predict_proba(x), atol=1e-4)


def test_the_fit_is_where_a_search_without_gradients_ends():
    x, code = planted(1, 4, 60)

    def loss(p):
        under = 1 / (1 + np.exp(-(p[None, 4:] - (x @ p[:4])[:, None])))
        chance = np.diff(np.hstack([np.zeros((60, 1)), under, np.ones((60, 1))]))[np.arange(60), code]
        return np.inf if (chance <= 0).any() else -np.log(chance).mean() + 0.1 * (p[:4] ** 2).sum()

    weights, cuts = fit_proportional_odds(x, code, 0.2)
    search = minimize(loss, [0, 0, 0, 0, -1, 0, 1], method="Nelder-Mead", options={"maxiter": 20000, "fatol": 1e-12})
    np.testing.assert_allclose(np.concatenate([weights, cuts]), search.x, atol=2e-3)
    assert loss(np.concatenate([weights, cuts])) <= search.fun + 1e-9


def test_chances_add_up_and_rise_with_the_score():
    found = class_probabilities(np.array([-50.0, -1, 0, 1, 50]), np.array([-1.0, 0.5]))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (np.diff(found[:, 2]) > 0).all()
    assert (np.diff(found[:, 0]) < 0).all()


def test_one_class_is_certain():
    weights, cuts = fit_proportional_odds(np.ones((5, 2)), np.zeros(5, dtype=int), 1.0)
    assert class_probabilities(np.ones((3, 2)) @ weights, cuts).tolist() == [[1], [1], [1]]
