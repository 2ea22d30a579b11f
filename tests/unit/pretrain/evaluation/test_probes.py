"""Probes are what sklearn and loops give, find what is planted, and say what cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from foundation.linear.cox import fit_cox
from foundation.linear.learners import LogisticLearner, RidgeLearner
from foundation.linear.selection import stratified_folds
from foundation.metrics import class_scores, number_scores, score, survival_scores
from pretrain.evaluation import probes
from pretrain.evaluation.probes import probe_endpoints, probe_sites


def slow_concordance(risk, time, event, groups):
    won = known = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if groups[i] != groups[j] or not event[i] or i == j:
                continue
            if time[i] < time[j] or (time[i] == time[j] and not event[j]):
                known += 1
                won += (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
    return won / known if known else np.nan


@settings(max_examples=40)
@given(st.integers(2, 25), st.integers(1, 3), st.integers(0, 10**6))
def test_concordance_agrees_with_loops_over_pairs_and_with_repeated_patients(patients, groups, seed):
    random = np.random.default_rng(seed)
    risk, time = random.integers(0, 6, patients).astype(float), random.integers(1, 8, patients).astype(float)
    event, group = random.integers(0, 2, patients), random.integers(0, groups, patients).astype(str)
    score = survival_scores.concordance(risk, time, event, group)
    assert score(np.ones((1, patients)))[0] == pytest.approx(slow_concordance(risk, time, event, group), nan_ok=True)
    drawn = random.integers(0, patients, patients)
    weights = np.bincount(drawn, minlength=patients)[None].astype(float)
    again = slow_concordance(risk[drawn], time[drawn], event[drawn], group[drawn])
    assert score(weights)[0] == pytest.approx(again, nan_ok=True)


def test_scores_of_resamples_are_those_of_sklearn_on_repeated_patients():
    random = np.random.default_rng(0)
    truth, guess = random.integers(0, 3, 60), random.integers(0, 3, 60)
    chance = random.random((60, 3)).round(1)
    number, said = random.standard_normal((2, 60))
    for seed in range(5):
        drawn = np.random.default_rng(seed).integers(0, 60, 60)
        weights = np.bincount(drawn, minlength=60)[None].astype(float)
        areas = [roc_auc_score(truth[drawn] == k, chance[drawn, k]) for k in range(3)]
        expected = balanced_accuracy_score(truth[drawn], guess[drawn])
        assert class_scores.balanced_accuracy(truth, guess)(weights)[0] == pytest.approx(expected)
        assert class_scores.macro_auroc(truth, chance)(weights)[0] == pytest.approx(np.mean(areas))
        assert number_scores.r_squared(number, said)(weights)[0] == pytest.approx(r2_score(number[drawn], said[drawn]))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        truth = np.repeat([0, 1], 40)
        guess = np.where(random.random(80) < 0.7, truth, 1 - truth)
        _, (low, high) = score.with_interval(class_scores.balanced_accuracy(truth, guess), 80, random)
        covered += low <= 0.7 <= high
    assert 86 <= covered <= 100


def rows(side, view, known):
    keep = side.present[view] & known
    return side.views[view][keep].astype(float), keep


def test_class_probe_is_what_sklearn_gives(make, monkeypatch):
    train, held_out = make(120, "t", signal=0.4), make(50, "h", signal=0.4)
    monkeypatch.setattr(LogisticLearner, "penalties", (10.0,))
    # Few of one class: without weights for classes it would hardly ever be guessed.
    code = train.endpoints["subtype"]["code"]
    code[np.flatnonzero(code == 1)[12:]] = -1
    result = probe_endpoints(train, held_out, {"subtype": "subtype"}, 0)["subtype"]["mri"]
    (x, keep), (z, kept) = (rows(s, "mri", s.endpoints["subtype"]["code"] >= 0) for s in (train, held_out))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
    model.fit(x, train.endpoints["subtype"]["code"][keep])
    truth = held_out.endpoints["subtype"]["code"][kept]
    assert (result["n_train"], result["n_test"], result["chance"]) == (keep.sum(), kept.sum(), pytest.approx(1 / 3))
    assert result["value"] == pytest.approx(balanced_accuracy_score(truth, model.predict(z)), abs=0.03)
    areas = [roc_auc_score(truth == k, model.predict_proba(z)[:, k]) for k in range(3)]
    assert result["also"]["macro_auroc"]["value"] == pytest.approx(np.mean(areas), abs=0.005)
    low, high = result["ci95"]
    assert low <= result["value"] <= high


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_the_one_that_a_grid_search_for_the_log_loss_finds(seed):
    random = np.random.default_rng(seed)
    code = random.integers(0, 2, 60)
    x = 5 + 100 * random.standard_normal((60, 8))
    x[:, 0] += 120 * code
    predict = probes._fit(LogisticLearner({"code": code}, np.full(60, "")), x, code, np.random.default_rng(9))
    folds = PredefinedSplit(np.argmax(stratified_folds(code, 5, np.random.default_rng(9)), axis=0))
    z = StandardScaler().fit_transform(x)

    def likelihood(model, z, code):
        return np.mean([np.log(model.predict_proba(z)[code == k, k]).mean() for k in (0, 1)])

    strengths = [1 / penalty for penalty in LogisticLearner.penalties]
    search = GridSearchCV(LogisticRegression(class_weight="balanced"), {"C": strengths}, cv=folds, scoring=likelihood)
    # A search for weights stops at a slope of 1e-4.
    np.testing.assert_allclose(predict(x)["probability"], search.fit(z, code).predict_proba(z), atol=2e-3)


def test_number_probe_is_what_sklearn_gives(make):
    train, held_out = make(120, "t"), make(50, "h")
    result = probe_endpoints(train, held_out, {"age": "regression"}, 0)["age"]["rna"]
    scaler = StandardScaler().fit(train.views["rna"].astype(float))
    # Leave-one-out is nearly what five folds are: both take the same penalty here.
    model = RidgeCV(alphas=RidgeLearner.penalties).fit(
        scaler.transform(train.views["rna"]), train.endpoints["age"]["value"]
    )
    expected = r2_score(held_out.endpoints["age"]["value"], model.predict(scaler.transform(held_out.views["rna"])))
    assert (result["metric"], result["chance"]) == ("r_squared", 0)
    assert result["value"] == pytest.approx(expected, abs=1e-3)
    assert expected > 0.3


def test_cox_weights_minimise_a_likelihood_written_with_loops():
    random = np.random.default_rng(0)
    x, time = random.standard_normal((40, 3)), random.integers(1, 12, 40).astype(float)
    event, groups = random.integers(0, 2, 40), random.integers(0, 2, 40).astype(str)

    def loss(weights):
        total = 0.0
        for i in np.flatnonzero(event):
            at_risk = [j for j in range(40) if groups[j] == groups[i] and time[j] >= time[i]]
            total -= x[i] @ weights - np.log(sum(np.exp(x[j] @ weights) for j in at_risk))
        return total / event.sum() + 0.5 * 0.1 * weights @ weights

    expected = minimize(loss, np.zeros(3), method="BFGS").x
    np.testing.assert_allclose(fit_cox(x, time, event, groups, 0.1), expected, atol=1e-4)


def test_survival_is_compared_within_groups_only(make):
    train, held_out = make(200, "t", groups=("one", "two")), make(80, "h", groups=("one", "two"))
    alone = probe_endpoints(train, held_out, {"os": "survival"}, 0)["os"]["mri"]
    for side in (train, held_out):
        # A tumour type that kills a hundred times as fast must not help the score.
        side.endpoints["os"]["time"] = side.endpoints["os"]["time"] * np.where(side.groups == "one", 1, 100)
    result = probe_endpoints(train, held_out, {"os": "survival"}, 0)["os"]["mri"]
    assert result["value"] == pytest.approx(alone["value"])
    assert result["value"] > 0.6
    assert set(result["by_group"]) == {"one", "two"}
    low, high = sorted(group["value"] for group in result["by_group"].values())
    assert low <= result["value"] <= high
    assert result["events_test"] == held_out.endpoints["os"]["event"].sum()


def test_probes_find_what_is_there_and_nothing_where_labels_are_shuffled(make, kinds):
    train, held_out = make(200, "t"), make(100, "h")
    found = probe_endpoints(train, held_out, kinds, 0)
    random = np.random.default_rng(0)
    for side in (train, held_out):
        order = random.permutation(len(side.patients))
        side.endpoints = {
            name: {part: values[order] for part, values in parts.items()} for name, parts in side.endpoints.items()
        }
    shuffled = probe_endpoints(train, held_out, kinds, 0)
    for endpoint in kinds:
        for view in ("mri", "rna", "fused"):
            assert found[endpoint][view]["ci95"][0] > found[endpoint][view]["chance"]
            low, high = shuffled[endpoint][view]["ci95"]
            # Twelve intervals: let them be half as wide again.
            slack = (high - low) / 4
            chance = shuffled[endpoint][view]["chance"]
            assert low - slack <= chance + (0.05 if endpoint == "age" else 0)
            assert high + slack >= chance or endpoint == "age"


def test_response_is_told_by_its_upper_half(make):
    train, held_out = make(200, "t", signal=0.3), make(60, "h", signal=0.3)
    result = probe_endpoints(train, held_out, {"response": "response"}, 0)["response"]["mri"]
    for side in (train, held_out):
        side.endpoints["half"] = {"code": (side.endpoints["response"]["code"] >= 2).astype(int)}
    half = probe_endpoints(train, held_out, {"half": "subtype"}, 0)["half"]["mri"]
    assert result["metric"] == "auroc_responder"
    assert result["value"] == pytest.approx(half["also"]["macro_auroc"]["value"], abs=0.03)
    assert result["also"]["balanced_accuracy"]["chance"] == 0.25


def test_nothing_of_the_held_out_patients_reaches_a_fit(make):
    kinds = {"subtype": "subtype", "response": "response", "os": "survival"}
    train, held_out = make(100, "t", groups=("one", "two")), make(60, "h", groups=("one", "two"))
    before = probe_endpoints(train, held_out, kinds, 0)
    others = held_out.groups == "two"
    for view in held_out.views:
        held_out.views[view][others] = -5 * held_out.views[view][others] + 3
    after = probe_endpoints(train, held_out, kinds, 0)
    for endpoint in kinds:
        one, two = (result[endpoint]["mri"] for result in (before, after))
        assert one["value"] != two["value"]
        assert one["by_group"]["one"]["value"] == two["by_group"]["one"]["value"]


def test_site_probe_tells_planted_sites_and_no_others(make):
    train, held_out = make(120, "t"), make(60, "h")
    plain = probe_sites(train, held_out, 0)
    for side in (train, held_out):
        side.views["mri"] = side.views["mri"] + np.eye(3, 12)[[int(s[-1]) for s in side.sites]].astype(np.float32) * 3
        side.sites[:2] = "small hospital"
        side.sites[2::3] = np.where(np.arange(len(side.sites[2::3])) % 2, "", side.sites[2::3])
    planted = probe_sites(train, held_out, 0)
    assert planted["mri"]["value"] > 0.95
    assert planted["mri"]["sites"] == 3
    assert planted["mri"]["chance"] == pytest.approx(1 / 3)
    assert "small hospital" not in str(planted)
    assert plain["rna"]["value"] < 0.6


def test_of_many_sites_the_largest_are_told_apart(make, monkeypatch):
    monkeypatch.setattr("pretrain.evaluation.probes.MOST_SITES", 2)
    train, held_out = make(120, "t"), make(60, "h")
    for side in (train, held_out):
        side.sites[:] = np.array(["small", "large", "larger"])[
            np.searchsorted([0.2, 0.55], np.linspace(0, 1, len(side.sites)))
        ]
        planted = np.eye(3, 12)[np.unique(side.sites, return_inverse=True)[1]].astype(np.float32)
        side.views["mri"] = side.views["mri"] + 3 * planted
    result = probe_sites(train, held_out, 0)["mri"]
    assert result["sites"] == 2 and result["value"] > 0.95
    assert result["n_train"] == (train.sites != "small").sum()


def test_what_cannot_be_measured_says_why(make, kinds):
    train, held_out = make(60, "t"), make(40, "h")
    held_out.present["rna"][5:] = False
    train.endpoints["subtype"]["code"][train.endpoints["subtype"]["code"] > 0] = -1
    train.endpoints["os"]["event"][:] = 0
    train.endpoints["response"]["code"][:] = 3
    held_out.endpoints["age"]["value"][:] = 50.0
    result = probe_endpoints(train, held_out, kinds, 0)
    assert "only 5 held-out patients" in result["age"]["rna"]["skipped"]
    assert "1 classes have 10 training" in result["subtype"]["mri"]["skipped"]
    assert "only 0 training patients had the event" in result["os"]["mri"]["skipped"]
    assert "one side of responder" in result["response"]["mri"]["skipped"]
    assert "same value" in result["age"]["mri"]["skipped"]


def test_a_rare_class_is_left_out_and_said(make):
    train, held_out = make(120, "t"), make(60, "h")
    rare = np.flatnonzero(train.endpoints["subtype"]["code"] == 2)[9:]
    train.endpoints["subtype"]["code"][rare] = -1
    result = probe_endpoints(train, held_out, {"subtype": "subtype"}, 0)["subtype"]["mri"]
    assert result["classes"] == [0, 1]
    assert result["chance"] == 0.5
    assert result["left_out"]["2"]["n_train"] == 9


def test_classes_by_group_have_the_chance_of_their_own_classes(make):
    train, held_out = make(200, "t", groups=("one", "two")), make(100, "h", groups=("one", "two"))
    code = held_out.endpoints["subtype"]["code"]
    code[(held_out.groups == "two") & (code == 2)] = -1
    by_group = probe_endpoints(train, held_out, {"subtype": "subtype"}, 0)["subtype"]["mri"]["by_group"]
    assert by_group["one"]["chance"] == pytest.approx(1 / 3)
    assert by_group["two"]["chance"] == 0.5
