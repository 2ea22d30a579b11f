"""The oracle: concordance against all pairs, and scores on patients of whom an endpoint is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.simulation import oracle as module
from foundation.simulation.oracle import concordance, oracle
from foundation.simulation.subject import Subject, draw_subject

SUBJECTS = 400
TELLABLE = ("subtype", "response", "toxicity", "seizure")


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    """Subjects of whom everything is told."""
    drawn = [draw_subject(11, index) for index in range(SUBJECTS)]
    all_told = dict.fromkeys(TELLABLE, True)
    return [dataclasses.replace(s, presence=dataclasses.replace(s.presence, **all_told)) for s in drawn]


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
    monkeypatch.setattr(module, "ROWS", 7)
    assert concordance(risk, days, event) == whole


def test_the_oracle_is_good_and_not_perfect(subjects):
    scores = oracle(subjects)
    assert 0.9 < scores["subtype"]["balanced_accuracy"]["oracle"] < 0.995
    assert 0.7 < scores["response"]["auroc_responder"]["oracle"] < 0.95
    assert 0.3 < scores["response"]["quadratic_kappa"]["oracle"] < 0.9
    assert 0.65 < scores["os"]["c_index"]["oracle"] < 0.9
    assert 0.7 < scores["toxicity"]["balanced_accuracy"]["oracle"] < 0.9
    assert 0.8 < scores["toxicity"]["macro_auroc"]["oracle"] < 0.95
    assert 0.65 < scores["seizure"]["c_index"]["oracle"] < 0.9


@pytest.mark.parametrize("endpoint", TELLABLE)
def test_the_oracle_sees_only_whose_endpoint_is_told(subjects, endpoint):
    some = [
        dataclasses.replace(s, presence=dataclasses.replace(s.presence, **{endpoint: place % 2 == 0}))
        for place, s in enumerate(subjects)
    ]
    half, everyone = oracle(subjects[::2]), oracle(subjects)
    assert half[endpoint] != everyone[endpoint]
    assert oracle(some) == {**everyone, endpoint: half[endpoint]}


def test_the_oracle_knows_the_toxicity_that_was_drawn(subjects):
    scores = oracle(subjects)["toxicity"]
    guess = np.array([s.outcome.toxicity_score > 0 for s in subjects])
    truth = np.array([s.outcome.toxicity for s in subjects])
    right = [np.mean(guess[truth]), np.mean(~guess[~truth])]
    assert scores["balanced_accuracy"] == {"oracle": round(float(np.mean(right)), 4), "chance": 0.5}
    first, second = (np.array([s.outcome.toxicity_score for s in subjects])[side] for side in (truth, ~truth))
    assert scores["macro_auroc"]["oracle"] == round(float(np.mean(first[:, None] > second)), 4)


def test_a_score_that_nobody_can_tell_is_none(subjects):
    alike = [
        dataclasses.replace(
            subject,
            patient=dataclasses.replace(subject.patient, subtype=1),
            outcome=dataclasses.replace(subject.outcome, event=0, response=0, toxicity=True, seizure_event=0),
        )
        for subject in subjects[:5]
    ]
    scores = oracle(alike)
    assert scores["os"]["c_index"] == scores["seizure"]["c_index"] == {"oracle": None, "chance": 0.5}
    assert scores["subtype"]["macro_auroc"]["oracle"] is scores["toxicity"]["macro_auroc"]["oracle"] is None
    assert scores["response"]["auroc_responder"]["oracle"] is scores["response"]["quadratic_kappa"]["oracle"] is None
