"""Toxicity and seizures: no linear model of the latent sees them, products of its dimensions do."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score

from foundation.simulation.anatomy import paint
from foundation.simulation.latent import LATENT, draw_patient
from foundation.simulation.oracle import oracle
from foundation.simulation.outcomes import HAZARD, SEIZURE, TOXICITY
from foundation.simulation.subject import Subject, draw_subject

with warnings.catch_warnings():
    # Third-party packages import parts of others that are on their way out.
    warnings.simplefilter("ignore")
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.metrics import concordance_index_censored
    from sksurv.util import Surv

SUBJECTS = 4000
TRAINING = np.arange(SUBJECTS) < SUBJECTS // 2
TESTED = ~TRAINING


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [draw_subject(7, index) for index in range(SUBJECTS)]


@pytest.fixture(scope="module")
def latent_ND(subjects) -> np.ndarray:
    return np.array([subject.patient.latent for subject in subjects])


def products(x_ND: np.ndarray, most: int) -> np.ndarray:
    """Columns, and their products of up to so many of them."""
    sets = [names for size in range(1, most + 1) for names in combinations(range(x_ND.shape[1]), size)]
    return np.stack([x_ND[:, list(names)].prod(axis=1) for names in sets], axis=1)


def linear_auroc(x_ND: np.ndarray, subjects: list[Subject]) -> float:
    """AUROC for toxicity of a logistic model, learned from one half and tested on the other."""
    toxicity = np.array([subject.outcome.toxicity for subject in subjects])
    model = LogisticRegression(C=0.1, max_iter=1000).fit(x_ND[TRAINING], toxicity[TRAINING])
    return float(roc_auc_score(toxicity[TESTED], model.decision_function(x_ND[TESTED])))


def linear_concordance(x_ND: np.ndarray, subjects: list[Subject]) -> float:
    """Concordance for seizures of a Cox model, learned from one half and tested on the other."""
    event = np.array([subject.outcome.seizure_event == 1 for subject in subjects])
    days = np.array([subject.outcome.seizure_days for subject in subjects], dtype=float)
    model = CoxPHSurvivalAnalysis(alpha=10.0, ties="efron").fit(x_ND[TRAINING], Surv.from_arrays(event, days)[TRAINING])
    risk = model.predict(x_ND[TESTED])
    return float(concordance_index_censored(event[TESTED], days[TESTED], risk)[0])


@pytest.fixture(scope="module")
def error() -> dict[str, float]:
    """Standard deviation of a score without skill, on the tested half.

    AUROC: Mann and Whitney 1947, for halves. C: as Kendall's tau of the events alone, which is more than that of all.
    """
    tested, events = SUBJECTS // 2, 0.55 * SUBJECTS // 2
    return {
        "auroc": np.sqrt((tested + 1) / (12 * (tested / 2) ** 2)),
        "c": np.sqrt((2 * events + 5) / (9 * events * (events - 1) / 2)) / 2,
    }


def test_no_linear_model_of_the_latent_sees_toxicity_and_products_do(subjects, latent_ND, error):
    best = oracle([s for s, here in zip(subjects, TESTED, strict=True) if here])["toxicity"]["macro_auroc"]["oracle"]
    assert abs(linear_auroc(latent_ND, subjects) - 0.5) < 2 * error["auroc"]
    assert 0.85 < best < 0.9
    assert linear_auroc(products(latent_ND, 2), subjects) > best - 0.02


def test_no_linear_model_of_the_latent_or_its_pairs_sees_seizures_and_products_of_three_do(subjects, latent_ND, error):
    best = oracle([s for s, here in zip(subjects, TESTED, strict=True) if here])["seizure"]["c_index"]["oracle"]
    for most in (1, 2):
        assert abs(linear_concordance(products(latent_ND, most), subjects) - 0.5) < 2 * error["c"]
    assert 0.73 < best < 0.8
    assert linear_concordance(products(latent_ND, 3), subjects) > best - 0.03


def test_no_dimension_and_no_clinical_value_goes_with_an_outcome(subjects, latent_ND):
    clinical = [[s.patient.age, s.patient.stage, s.patient.sex == "F", s.patient.site.number] for s in subjects]
    subtype_NK = np.array([s.patient.subtype for s in subjects])[:, None] == np.arange(4)
    x_NF = np.column_stack([latent_ND, clinical, subtype_NK])
    # Early seizures: later, death takes more of those who are ill.
    early_N = [s.outcome.seizure_event and s.outcome.seizure_days <= 60 for s in subjects]
    outcome_N2 = np.column_stack([[s.outcome.toxicity for s in subjects], early_N])
    correlation = np.corrcoef(x_NF, outcome_N2, rowvar=False)[: x_NF.shape[1], x_NF.shape[1] :]
    assert np.abs(correlation).max() < 3.5 / np.sqrt(SUBJECTS)


def test_whether_an_endpoint_is_told_says_nothing_of_the_latent(subjects, latent_ND):
    told_N2 = np.array([[s.presence.toxicity, s.presence.seizure] for s in subjects])
    stage_N = [s.patient.stage for s in subjects]
    correlation = np.corrcoef(np.column_stack([latent_ND, stage_N]), told_N2, rowvar=False)[:9, 9:]
    assert np.abs(correlation).max() < 3.5 / np.sqrt(SUBJECTS)


def test_dimensions_of_a_product_are_independent_and_death_favours_no_side_of_those_of_seizures():
    # Side, depth and brightness are the subtype's corners: a product of two of them goes with the third.
    by_subtype = {"side", "depth", "brightness"}
    for names in (*TOXICITY, *SEIZURE):
        assert len(set(names)) == len(names) and len(by_subtype & set(names)) <= 1
    assert not set().union(*SEIZURE) & set(HAZARD)


@pytest.mark.slow
def test_no_weighted_sum_of_voxels_sees_the_products():
    voxels, latent = [], []
    for patient in (draw_patient(5, index) for index in range(1200)):
        if patient.site.number < 4:
            scan = paint(5, patient)
            channels = np.stack([scan.t1, scan.flair]) / np.percentile(scan.flair, 99)
            voxels.append(channels.reshape(2, 10, 4, 12, 4, 8, 3).mean(axis=(2, 4, 6)).ravel())
            latent.append(patient.latent)
    x_NV, latent_ND = np.array(voxels), np.array(latent)
    training = np.arange(len(x_NV)) % 4 > 0

    def seen(*names: str) -> float:
        product_N = latent_ND[:, [LATENT.index(name) for name in names]].prod(axis=1)
        model = RidgeCV(alphas=np.logspace(-2, 3, 11)).fit(x_NV[training], product_N[training])
        return float(np.corrcoef(model.predict(x_NV[~training]), product_N[~training])[0, 1])

    assert seen("depth", "necrosis") > 0.3 and seen("side", "size") > 0.3
    for names in (*TOXICITY, *SEIZURE):
        assert seen(*names) < 3 / np.sqrt(np.sum(~training))
