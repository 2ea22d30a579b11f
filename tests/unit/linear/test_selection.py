"""The rule that chooses a penalty: what a grid search by likelihood on inner folds chooses."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.utils.class_weight import compute_sample_weight

from foundation.linear.learners import LEARNERS, CoxLearner
from foundation.linear.selection import choose_penalty, fit_chosen, stratified_folds

PATIENTS = 80


def outcomes(kind: str, signal: float, seed: int = 0):
    """Inputs of the rows, the rows, and a learner that knows more patients than these."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((PATIENTS, 8))
    latent = signal * x[:, 0] + random.standard_normal(PATIENTS)
    parts = {
        "subtype": {"code": np.digitize(latent, [-1.0, 0.5])},
        "response": {"code": np.digitize(latent, [-1, 0, 1])},
        "survival": {"time": np.exp(-latent), "event": random.integers(0, 2, PATIENTS)},
        "regression": {"value": latent},
    }[kind]
    rows = random.permutation(PATIENTS)[:60]
    return x[rows], rows, LEARNERS[kind](parts, np.full(PATIENTS, ""))


def folds(seed: int = 0, count: int = 4) -> list[np.ndarray]:
    return stratified_folds(np.zeros(60), count, np.random.default_rng(seed))


def split_of(held_out: list[np.ndarray]) -> PredefinedSplit:
    return PredefinedSplit(np.argmax(held_out, axis=0))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("signal", [0.3, 2.0])
def test_classes_choose_what_a_grid_search_for_the_log_loss_chooses(signal, seed):
    x, rows, learner = outcomes("subtype", signal, seed)
    held_out = folds(seed)

    def likelihood(model, x, code):
        return -log_loss(
            code, model.predict_proba(x), sample_weight=compute_sample_weight("balanced", code), labels=model.classes_
        )

    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    strengths = [1 / penalty for penalty in learner.penalties]
    search = GridSearchCV(model, {"C": strengths}, cv=split_of(held_out), scoring=likelihood)
    chosen = choose_penalty(learner, x, rows, held_out)
    assert 1 / chosen == search.fit(x, learner.parts["code"][rows]).best_params_["C"]


@pytest.mark.parametrize("seed", range(4))
def test_numbers_choose_what_a_grid_search_for_the_squared_error_chooses(seed):
    x, rows, learner = outcomes("regression", 0.7, seed)
    held_out = folds(seed)
    search = GridSearchCV(
        Ridge(), {"alpha": list(learner.penalties)}, cv=split_of(held_out), scoring="neg_mean_squared_error"
    ).fit(x, learner.parts["value"][rows])
    assert choose_penalty(learner, x, rows, held_out) == search.best_params_["alpha"]
    np.testing.assert_allclose(fit_chosen(learner, x, rows, held_out)(x)["value"], search.predict(x))


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_penalty_is_large_where_there_is_nothing_to_learn_and_small_where_there_is(kind):
    nothing, much = (
        choose_penalty(learner, x, rows, folds()) for x, rows, learner in (outcomes(kind, 0.0), outcomes(kind, 6.0))
    )
    assert nothing > 10 * much


def test_likelihood_decides_where_the_order_of_patients_would_not():
    # One input: every penalty orders patients alike, and only likelihood asks how far they lie apart.
    time = np.random.default_rng(0).permutation(60) + 1.0
    learner = CoxLearner({"time": time, "event": np.ones(60)}, np.full(60, ""))
    x = -np.log(time)[:, None]
    assert choose_penalty(learner, x, np.arange(60), folds()) == learner.penalties[-1]
    assert choose_penalty(learner, np.sin(7 * x), np.arange(60), folds()) > learner.penalties[-1]


@pytest.mark.parametrize("kind", ["regression", "survival"])
def test_of_equals_the_most_cautious_is_taken(kind):
    x, rows, learner = outcomes(kind, 1.0)
    assert choose_penalty(learner, x, rows, folds()) < learner.penalties[0]
    assert choose_penalty(learner, np.zeros_like(x), rows, folds()) == learner.penalties[0]


def test_folds_that_hold_out_nobody_or_everybody_are_passed_over():
    x, rows, learner = outcomes("regression", 2.0)
    empty = [np.zeros(60, dtype=bool), np.ones(60, dtype=bool)]
    assert choose_penalty(learner, x, rows, [*empty, *folds()]) == choose_penalty(learner, x, rows, folds())
    for nothing in (empty, []):
        assert choose_penalty(learner, x, rows, nothing) == learner.penalties[0]


@pytest.mark.parametrize("kind", LEARNERS)
def test_nothing_of_the_held_out_rows_enters_a_fit(kind):
    x, rows, learner = outcomes(kind, 1.0)
    held_out = folds()

    class Watched(type(learner)):
        def path(self, x_ND, rows, penalties):
            fitted_on.append((x_ND, rows))
            return super().path(x_ND, rows, penalties)

    fitted_on: list[tuple[np.ndarray, np.ndarray]] = []
    watched = Watched(learner.parts, learner.groups)
    fit_chosen(watched, x, rows, held_out)
    assert len(fitted_on) == len(held_out) + 1
    for held_out_N, (x_ND, of) in zip([*held_out, np.zeros(60, dtype=bool)], fitted_on, strict=True):
        np.testing.assert_array_equal(of, rows[~held_out_N])
        np.testing.assert_array_equal(x_ND, x[~held_out_N])


@pytest.mark.parametrize("kind", LEARNERS)
def test_patients_who_are_no_rows_have_no_part_in_it(kind):
    x, rows, learner = outcomes(kind, 1.0)
    others = np.setdiff1d(np.arange(PATIENTS), rows)
    parts = {part: values.copy() for part, values in learner.parts.items()}
    for values in parts.values():
        values[others] = values[others][::-1]
    again = type(learner)(parts, learner.groups)
    for part, values in fit_chosen(learner, x, rows, folds())(x).items():
        np.testing.assert_array_equal(fit_chosen(again, x, rows, folds())(x)[part], values)


def test_folds_hold_out_everybody_once_and_spread_each_stratum():
    strata = np.random.default_rng(3).permutation(np.repeat([0, 1, 7], [41, 12, 3]))
    made = stratified_folds(strata, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sum(made, axis=0), 1)
    for stratum in (*np.unique(strata), strata):
        of_fold = [int(np.sum(held_out_N & (strata == stratum))) for held_out_N in made]
        assert max(of_fold) - min(of_fold) <= 1
    again, other = (stratified_folds(strata, 5, np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(made, again)
    assert not np.array_equal(made, other)
