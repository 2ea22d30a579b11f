"""Outcomes against independent references: pairwise concordance, Bayes' rule by densities, the Weibull hazard."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from foundation.simulation import outcomes
from foundation.simulation.latent import (
    CORNERS,
    LATENT,
    SEPARATION,
    draw_patient,
    subtype_probabilities,
)
from foundation.simulation.outcomes import concordance, draw_outcome, oracle

SUBJECTS = 400


@pytest.fixture(scope="module")
def drawn():
    patients = [draw_patient(11, index) for index in range(SUBJECTS)]
    return patients, [draw_outcome(11, patient) for patient in patients]


def pairwise_concordance(risk, days, event) -> float:
    right = pairs = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] == 1 and (days[i] < days[j] or (days[i] == days[j] and event[j] == 0)):
                pairs += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / pairs if pairs else float("nan")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=12))
def test_concordance_is_that_of_all_pairs(rows):
    risk, days, event = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(concordance(risk, days, event), pairwise_concordance(risk, days, event), equal_nan=True)


def test_concordance_does_not_depend_on_the_size_of_its_blocks(monkeypatch):
    random = np.random.default_rng(0)
    risk, days, event = random.normal(size=300), random.integers(1, 50, 300), random.integers(0, 2, 300)
    whole = concordance(risk, days, event)
    monkeypatch.setattr(outcomes, "ROWS", 7)
    assert concordance(risk, days, event) == whole


def test_subtype_probabilities_are_bayes_rule_on_the_densities(drawn):
    latent_ND = np.array([patient.latent for patient in drawn[0]])
    scaled = latent_ND[:, :3] * np.sqrt(1 + SEPARATION**2)
    density_NK = np.stack([multivariate_normal(SEPARATION * corner).pdf(scaled) for corner in CORNERS], axis=1)
    expected_NK = density_NK / density_NK.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(subtype_probabilities(latent_ND), expected_NK, atol=1e-12)


def test_the_latent_has_mean_0_and_variance_1(drawn):
    latent_ND = np.array([patient.latent for patient in drawn[0]])
    assert np.abs(latent_ND.mean(axis=0)).max() < 4 / np.sqrt(SUBJECTS)
    assert np.abs(latent_ND.std(axis=0) - 1).max() < 0.15


def test_the_oracle_is_good_and_not_perfect(drawn):
    everyone = np.ones(SUBJECTS, dtype=bool)
    scores = oracle(*drawn, everyone, everyone)
    assert 0.9 < scores["subtype"]["balanced_accuracy"]["oracle"] < 0.995
    assert 0.7 < scores["response"]["auroc_responder"]["oracle"] < 0.95
    assert 0.3 < scores["response"]["quadratic_kappa"]["oracle"] < 0.9
    assert 0.65 < scores["os"]["c_index"]["oracle"] < 0.9


def test_the_oracle_sees_only_whose_endpoint_is_told(drawn):
    patients, ends = drawn
    told = np.arange(SUBJECTS) % 2 == 0
    some = oracle(patients, ends, told, told)
    half = oracle(patients[::2], ends[::2], np.ones(sum(told), bool), np.ones(sum(told), bool))
    assert some["subtype"] == half["subtype"] and some["response"] == half["response"] and some["os"] != half["os"]


def test_a_score_that_nobody_can_tell_is_none(drawn):
    patients, ends = drawn
    alike = [dataclasses.replace(end, event=0, response=0) for end in ends[:5]]
    same = [dataclasses.replace(patient, subtype=1) for patient in patients[:5]]
    told = np.ones(5, dtype=bool)
    scores = oracle(same, alike, told, told)
    assert scores["os"]["c_index"] == {"oracle": None, "chance": 0.5}
    assert scores["subtype"]["macro_auroc"]["oracle"] is None
    assert scores["response"]["auroc_responder"]["oracle"] is scores["response"]["quadratic_kappa"]["oracle"] is None


def test_survival_is_positive_and_censored_in_part(drawn):
    ends = drawn[1]
    assert min(end.days for end in ends) >= 1 and max(end.days for end in ends) <= outcomes.STUDY_DAYS
    assert 0.5 < np.mean([end.event for end in ends]) < 0.85


def test_deaths_without_censoring_follow_the_weibull_hazard(monkeypatch, drawn):
    monkeypatch.setattr(outcomes, "STUDY_DAYS", 1e9)
    monkeypatch.setattr(outcomes, "LOST_AFTER_DAYS", 1e12)
    ends = [draw_outcome(11, patient) for patient in drawn[0]]
    days = np.array([end.days for end in ends], dtype=float)
    hazard = np.exp([end.linear_predictor for end in ends])
    cumulative = hazard * (days / outcomes.WEIBULL_SCALE) ** outcomes.WEIBULL_SHAPE
    assert all(end.event for end in ends)
    # The cumulative hazard at death is a standard exponential, whatever the hazard.
    assert abs(cumulative.mean() - 1) < 4 / np.sqrt(SUBJECTS)
    assert abs(np.mean(cumulative < np.log(2)) - 0.5) < 2 / np.sqrt(SUBJECTS)


def test_every_dimension_named_by_an_endpoint_is_a_latent():
    assert set(outcomes.HAZARD) | set(outcomes.RESPONSE) <= set(LATENT)
