"""Outcomes against independent references: Bayes' rule by densities, Weibull hazards, logistic odds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from foundation.simulation import outcomes
from foundation.simulation.latent import (
    CORNERS,
    LATENT,
    SEPARATION,
    draw_patient,
    subtype_probabilities,
)
from foundation.simulation.outcomes import draw_outcome
from foundation.simulation.streams import stream

SUBJECTS = 400


@pytest.fixture(scope="module")
def drawn():
    patients = [draw_patient(11, index) for index in range(SUBJECTS)]
    return patients, [draw_outcome(11, patient) for patient in patients]


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


def test_toxicity_has_the_odds_of_its_product(drawn):
    patients, ends = drawn
    score = np.array([3.5 * patient.value("height") * patient.value("texture") for patient in patients])
    np.testing.assert_allclose([end.toxicity_score for end in ends], score)
    toxicity = np.array([end.toxicity for end in ends])
    for side in (score < -1, np.abs(score) <= 1, score > 1):
        expected_N = 1 / (1 + np.exp(-score[side]))
        error = np.sqrt(np.sum(expected_N * (1 - expected_N)))
        assert abs(toxicity[side].sum() - expected_N.sum()) < 3 * error


def test_first_seizures_follow_the_weibull_hazard_of_their_product(monkeypatch, drawn):
    monkeypatch.setattr(outcomes, "STUDY_DAYS", 1e9)
    monkeypatch.setattr(outcomes, "LOST_AFTER_DAYS", 1e12)
    monkeypatch.setattr(outcomes, "WEIBULL_SCALE", 1e15)
    patients = drawn[0]
    ends = [draw_outcome(11, patient) for patient in patients]
    score = [2 * p.value("height") * p.value("elongation") * p.value("necrosis") for p in patients]
    np.testing.assert_allclose([end.seizure_score for end in ends], score)
    assert sum(end.seizure_event for end in ends) > 0.99 * SUBJECTS
    # Of whom the seizure comes within days, whole days are too coarse to tell the hazard.
    late = np.abs(score) < 3
    days = np.array([end.seizure_days for end in ends], dtype=float)[late]
    cumulative = np.exp(np.array(score)[late]) * ((days - 0.5) / outcomes.SEIZURE_SCALE) ** outcomes.WEIBULL_SHAPE
    assert late.mean() > 0.8
    assert abs(cumulative.mean() - 1) < 4 / np.sqrt(late.sum())
    assert abs(np.mean(cumulative < np.log(2)) - 0.5) < 2 / np.sqrt(late.sum())


def test_nobody_has_a_seizure_after_the_last_visit(drawn):
    ends = drawn[1]
    assert all(1 <= end.seizure_days <= end.days for end in ends)
    assert all(end.seizure_days == end.days for end in ends if not end.seizure_event)
    assert 0.45 < np.mean([end.seizure_event for end in ends]) < 0.7


@pytest.mark.parametrize("purpose", ["toxicity", "seizure"])
def test_an_endpoint_beyond_linear_has_a_stream_of_its_own(monkeypatch, drawn, purpose):
    patients, before = drawn
    monkeypatch.setattr(outcomes, "stream", lambda seed, what, *n: stream(seed + (what == purpose), what, *n))
    after = [draw_outcome(11, patient) for patient in patients]
    for field in dataclasses.fields(outcomes.Outcome):
        same = [
            getattr(one, field.name) == getattr(other, field.name) for one, other in zip(before, after, strict=True)
        ]
        may_differ = (
            field.name in {"toxicity"} if purpose == "toxicity" else field.name in {"seizure_days", "seizure_event"}
        )
        assert all(same) != may_differ, field.name


def test_every_dimension_named_by_an_endpoint_is_a_latent():
    products = {name for names in (*outcomes.TOXICITY, *outcomes.SEIZURE) for name in names}
    assert set(outcomes.HAZARD) | set(outcomes.RESPONSE) | products <= set(LATENT)
