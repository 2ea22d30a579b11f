"""Survival curves and scores against their definitions, scikit-survival and lifelines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foundation.metrics.survival_curves import Censoring, breslow, kaplan_meier, log_rank
from foundation.metrics.survival_scores import auc_at, brier_at, concordance, integrated_brier, uno

with warnings.catch_warnings():
    # Third-party packages import parts of torch and pandas that are on their way out.
    warnings.simplefilter("ignore")
    from lifelines.statistics import multivariate_logrank_test
    from sksurv.compare import compare_survival
    from sksurv.linear_model.coxph import BreslowEstimator
    from sksurv.metrics import (
        brier_score,
        concordance_index_censored,
        concordance_index_ipcw,
        cumulative_dynamic_auc,
        integrated_brier_score,
    )
    from sksurv.nonparametric import CensoringDistributionEstimator
    from sksurv.util import Surv

ONE = np.ones((1, 40))


def product_limit(time, event):
    """Kaplan-Meier by its definition: the product over event times of one minus deaths over at risk."""
    free, points = 1.0, {}
    for moment in sorted(set(time)):
        at_risk = sum(t >= moment for t in time)
        happened = sum(t == moment and e for t, e in zip(time, event, strict=True))
        free *= 1 - happened / at_risk
        points[moment] = free
    return points


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=30))
def test_survival_is_the_product_limit(pairs):
    time, event = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    curve = kaplan_meier(time, event)
    expected = product_limit(time.tolist(), event.astype(bool).tolist())
    assert curve.times.tolist() == [0.0, *expected]
    assert curve.free[0] == 1
    np.testing.assert_allclose(curve.free[1:], list(expected.values()), atol=1e-12)
    known = ~np.isnan(curve.low)
    assert np.all(curve.low[known] <= curve.free[known] + 1e-12)
    assert np.all(curve.high[known] >= curve.free[known] - 1e-12)


def test_median_is_the_first_time_at_a_half_or_nothing():
    curve = kaplan_meier(np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 1, 1]))
    assert curve.median(curve.free) == 2
    curve = kaplan_meier(np.array([1.0, 2, 3, 4]), np.array([1.0, 0, 0, 0]))
    assert np.isnan(curve.median(curve.free))


@st.composite
def patients(draw):
    """Forty patients with tied times and tied risks, and training patients who were watched longer than any of them."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    ends = draw(st.integers(3, 60))
    time = random.integers(1, ends, 40).astype(float)
    event = (random.random(40) < draw(st.sampled_from([0.3, 0.6, 0.9]))).astype(float)
    risk = random.integers(0, draw(st.sampled_from([3, 1000])), 40).astype(float) - 0.125 * time
    train_time = np.append(random.integers(1, ends, 60), [ends, ends]).astype(float)
    train_event = np.append(random.random(60) < 0.5, [True, True]).astype(float)
    assume(event.sum() > 2)
    return risk, time, event, train_time, train_event


def surv(event, time):
    return Surv.from_arrays(event == 1, time)


def groups(time):
    return np.full(len(time), "")


@given(patients())
def test_censoring_is_that_of_scikit_survival(made):
    _, time, event, train_time, train_event = made
    ours = Censoring(train_time, train_event, groups(train_time))
    theirs = CensoringDistributionEstimator().fit(surv(train_event, train_time))
    np.testing.assert_allclose(ours.watched(time, groups(time)), theirs.predict_proba(time), atol=1e-9)
    inverse = ours.inverse(time, groups(time)) * event
    np.testing.assert_allclose(inverse, theirs.predict_ipcw(surv(event, time)), atol=1e-9)


@given(patients())
def test_concordance_is_that_of_scikit_survival(made):
    risk, time, event, train_time, train_event = made
    expected = concordance_index_censored(event == 1, time, risk)[0]
    assert concordance(risk, time, event, groups(time))(ONE)[0] == pytest.approx(expected, abs=1e-6)
    censoring = Censoring(train_time, train_event, groups(train_time))
    middle = float(np.median(time)) + 0.5
    assume((event[time < middle] == 1).any())
    for horizon in (None, middle):
        expected = concordance_index_ipcw(surv(train_event, train_time), surv(event, time), risk, tau=horizon)[0]
        found = uno(risk, time, event, groups(time), censoring, horizon or np.inf)(ONE)[0]
        assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(patients())
def test_auc_and_brier_are_those_of_scikit_survival(made):
    risk, time, event, train_time, train_event = made
    at = np.unique(np.quantile(time[event == 1], [0.2, 0.5, 0.8]))
    assume(len(at) > 1 and at[-1] < time.max())
    assume((time[event == 1] <= at[0]).any())
    censoring = Censoring(train_time, train_event, groups(train_time))
    data = (surv(train_event, train_time), surv(event, time))
    free = np.exp(-np.outer(np.exp(risk / 1000), at / time.max()))
    rest = (time, event, groups(time), censoring)
    np.testing.assert_allclose(
        [auc_at(moment, risk, *rest)(ONE)[0] for moment in at], cumulative_dynamic_auc(*data, risk, at)[0], atol=1e-6
    )
    found = [brier_at(moment, free[:, i], *rest)(ONE)[0] for i, moment in enumerate(at)]
    np.testing.assert_allclose(found, brier_score(*data, free, at)[1], atol=1e-6)
    expected = integrated_brier_score(*data, free, at)
    assert integrated_brier(at, free, *rest)(ONE)[0] == pytest.approx(expected, abs=1e-6)


@given(patients())
def test_a_weight_is_that_many_patients(made):
    risk, time, event, train_time, train_event = made
    censoring = Censoring(train_time, train_event, groups(train_time))
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=3).astype(float)
    at = float(np.median(time))
    free = np.linspace(0, 1, 40)

    def scores(rows):
        rest = (time[rows], event[rows], groups(rows), censoring)
        yield uno(risk[rows], *rest)
        yield auc_at(at, risk[rows], *rest)
        yield brier_at(at, free[rows], *rest)

    for number, score in enumerate(scores(np.arange(40))):
        for row, found in zip(weights.astype(int), score(weights), strict=True):
            rows = np.repeat(np.arange(40), row)
            assert found == pytest.approx(list(scores(rows))[number](ONE)[0], abs=1e-9, nan_ok=True)


def test_groups_are_never_compared_and_an_unknown_group_takes_the_censoring_of_all():
    random = np.random.default_rng(0)
    time, event = random.permutation(40) + 1.0, np.ones(40)
    group = np.where(np.arange(40) < 20, "a", "b")
    censoring = Censoring(time, event, group)
    # The order is right within each group, and says nothing between them.
    risk = np.where(group == "a", -time, 500 - time)
    assert uno(risk, time, event, group, censoring)(ONE)[0] == 1
    assert auc_at(20.0, risk, time, event, group, censoring)(ONE)[0] == 1
    censoring = Censoring(np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 1, 1]), np.array(["a", "a", "b", "b"]))
    watched = censoring.watched(np.array([1.5, 1.5, 1.5]), np.array(["a", "b", "c"]))
    np.testing.assert_allclose(watched, [0.5, 1, 0.75])


@given(patients())
def test_log_rank_is_that_of_scikit_survival_and_lifelines(made):
    risk, time, event, _, _ = made
    method = np.digitize(risk, np.quantile(risk, [0.3, 0.7]))
    assume(len(np.unique(method)) > 1)
    statistic, p_value = log_rank(time, event, method)
    expected = compare_survival(surv(event, time), method)
    assert (statistic, p_value) == pytest.approx(expected, abs=1e-6)
    theirs = multivariate_logrank_test(time, method, event)
    assert p_value == pytest.approx(theirs.p_value, abs=1e-6)


def test_a_stratified_log_rank_test_compares_within_strata():
    """One curve holds the bad stratum, the other the good one: pooled that is a difference, stratified none."""
    random = np.random.default_rng(0)
    stratum = np.repeat([0, 1], 200)
    time = random.exponential(1 + 4 * stratum)
    method = (random.random(400) < 0.2 + 0.6 * stratum).astype(int)
    assert log_rank(time, np.ones(400), method)[1] < 1e-6
    assert log_rank(time, np.ones(400), method, stratum)[1] > 0.05
    assert np.isnan(log_rank(time, np.zeros(400), method)).all()
    assert np.isnan(log_rank(time, np.ones(400), np.zeros(400))).all()


@given(patients())
def test_baseline_hazard_is_that_of_scikit_survival(made):
    risk, time, event, _, _ = made
    risk = risk / 1000
    theirs = BreslowEstimator().fit(risk, event == 1, time)
    at = np.unique(time)
    np.testing.assert_allclose(breslow(risk, time, event, at), theirs.cum_baseline_hazard_(at), atol=1e-9)
    assert breslow(risk, time, event, np.array([0.0]))[0] == 0


def test_the_band_is_that_of_lifelines():
    import pandas as pd
    from lifelines import KaplanMeierFitter

    random = np.random.default_rng(0)
    time, event = random.integers(1, 30, 80).astype(float), (random.random(80) < 0.6).astype(float)
    curve = kaplan_meier(time, event)
    theirs = KaplanMeierFitter().fit(time, event)
    assert isinstance(theirs.survival_function_, pd.DataFrame)
    band = theirs.confidence_interval_.to_numpy()
    inside = (curve.free > 0) & (curve.free < 1)
    np.testing.assert_allclose(curve.low[inside], band[inside, 0], atol=1e-6)
    np.testing.assert_allclose(curve.high[inside], band[inside, 1], atol=1e-6)
    free, low, _ = curve.at(np.array([0.0, 10.5]))
    assert free[0] == 1
    assert np.isnan(low[0])
    assert free[1] == pytest.approx(theirs.predict(10.5))
