"""Ridge regressions out of fold: as scikit-learn's, and honest where there is nothing to tell."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV

from finetune.explain.radiogenomics import PENALTIES, Ridge, standardised


def test_it_is_scikit_learns_ridge_out_of_fold():
    random = np.random.default_rng(0)
    x, weights = random.standard_normal((120, 8)), random.standard_normal((8, 3))
    y = x @ weights + random.standard_normal((120, 3)) * [0.1, 2, 8]
    ridge = Ridge(x, np.random.default_rng(1))
    error, whole = np.zeros(3), np.zeros(3)
    for train, test, _, s, _ in ridge._folds:
        for f in range(3):
            model = RidgeCV(PENALTIES * (s**2).mean()).fit(x[train], y[train, f])
            error[f] += ((y[test, f] - model.predict(x[test])) ** 2).sum()
            whole[f] += ((y[test, f] - y[train, f].mean()) ** 2).sum()
    found = ridge.r_squared(y)
    np.testing.assert_allclose(found, 1 - error / whole, atol=0.03)
    assert found[0] > 0.95 and np.sort([np.concatenate([f[1] for f in ridge._folds])]).tolist() == [list(range(120))]


def test_of_noise_it_tells_nothing():
    random = np.random.default_rng(0)
    found = Ridge(random.standard_normal((100, 10)), random).r_squared(random.standard_normal((100, 50)))
    assert found.mean() < 0.01


def test_standardised_values_leave_out_what_was_not_observed():
    found = standardised(np.array([[1.0, 5], [3, 5], [np.nan, 5]]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0], [0, 0]])
