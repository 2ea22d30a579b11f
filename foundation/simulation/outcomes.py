"""What becomes of the simulated patients, and how well anyone could predict it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.simulation.latent import LATENT, Patient, subtype_probabilities
from foundation.simulation.streams import stream

RESPONSES = ("PD", "SD", "PR", "CR")
"""RECIST, worst first; the last two are responders."""

HAZARD = {"size": 0.7, "texture": 0.6, "brightness": 0.5, "side": -0.4}
"""Log hazard per unit of the latent."""

HAZARD_PER_DECADE, HAZARD_PER_STAGE = 0.2, 0.15

RESPONSE = {"necrosis": -1.1, "texture": -0.9, "depth": 0.9, "size": -0.5}
"""Log odds of a better response per unit of the latent."""

RESPONSE_CUTS = (-1.8, 0.2, 2.2)

WEIBULL_SHAPE, WEIBULL_SCALE = 1.3, 1100.0
ACCRUAL_DAYS, STUDY_DAYS, LOST_AFTER_DAYS = 1095.0, 2555.0, 5000.0

ROWS = 512
"""Patients compared with all others at a time in the concordance index."""


@dataclass(frozen=True)
class Outcome:
    """What became of a patient, and the truth that it was drawn from.

    Attributes:
        days: Time to death or to the last follow-up, at least 1.
        event: 1 died, 0 censored.
        linear_predictor: Log hazard relative to the baseline.
        response: Position in `RESPONSES`.
        response_score: Log odds of a better response, before the cuts.
    """

    days: int
    event: int
    linear_predictor: float
    response: int
    response_score: float


def draw_outcome(seed: int, patient: Patient) -> Outcome:
    """Draw survival from a Weibull hazard with two kinds of censoring, and response from proportional odds."""
    random = stream(seed, "outcome", patient.index)
    log_hazard = sum(weight * patient.value(name) for name, weight in HAZARD.items())
    log_hazard += HAZARD_PER_DECADE * (patient.age - 60) / 10 + HAZARD_PER_STAGE * (patient.stage - 2)
    death = WEIBULL_SCALE * (random.standard_exponential() / math.exp(log_hazard)) ** (1 / WEIBULL_SHAPE)
    study_ends = STUDY_DAYS - random.uniform(0, ACCRUAL_DAYS)
    lost = random.exponential(LOST_AFTER_DAYS)
    last_seen = min(study_ends, lost)
    score = sum(weight * patient.value(name) for name, weight in RESPONSE.items())
    return Outcome(
        days=max(1, math.ceil(min(death, last_seen))),
        event=int(death <= last_seen),
        linear_predictor=log_hazard,
        response=int(np.searchsorted(RESPONSE_CUTS, score + random.logistic())),
        response_score=score,
    )


def concordance(risk_N: np.ndarray, days_N: np.ndarray, event_N: np.ndarray) -> float:
    """Harrell's C: of the pairs whose order is known, the fraction in which the higher risk dies first.

    A pair is known when the earlier time is an event; of two equal times, only an event before a censoring is.
    Equal risks count one half. NaN where no pair is known.

    Args:
        risk_N: [N], higher is worse.
        days_N: [N], time to event or censoring.
        event_N: [N], 1 or 0.
    """
    right, pairs = 0.0, 0
    died = np.flatnonzero(event_N == 1)
    for start in range(0, len(died), ROWS):
        rows = died[start : start + ROWS, None]
        known = (days_N[rows] < days_N) | ((days_N[rows] == days_N) & (event_N == 0))
        right += np.sum(known & (risk_N[rows] > risk_N)) + 0.5 * np.sum(known & (risk_N[rows] == risk_N))
        pairs += int(known.sum())
    return float(right / pairs) if pairs else math.nan


def oracle(
    patients: Sequence[Patient], outcomes: Sequence[Outcome], subtype_N: np.ndarray, response_N: np.ndarray
) -> dict[str, dict[str, dict[str, float | None]]]:
    """The scores that someone who knows the truth reaches on these patients: the ceiling of learning.

    Args:
        patients: All N patients.
        outcomes: Theirs, in the same order.
        subtype_N: [N] bool, whose subtype the clinical table tells.
        response_N: [N] bool, whose response it tells.

    Returns:
        Endpoint to metric to ``oracle`` and ``chance``; None where the patients are too few to tell.
    """
    from sklearn.metrics import cohen_kappa_score, recall_score, roc_auc_score

    subtype = np.array([p.subtype for p in patients])[subtype_N]
    odds_NK = subtype_probabilities(np.reshape([p.latent for p in patients], (-1, len(LATENT))))[subtype_N]
    response = np.array([o.response for o in outcomes])[response_N]
    score = np.array([o.response_score for o in outcomes])[response_N]
    survival = [np.array([getattr(o, key) for o in outcomes]) for key in ("linear_predictor", "days", "event")]
    classes = np.unique(subtype)
    # Balanced accuracy is the recall averaged over the classes that there are.
    recall = recall_score(subtype, odds_NK.argmax(axis=1), labels=classes, average="macro")
    areas = [roc_auc_score(subtype == k, odds_NK[:, k]) for k in classes] if len(classes) > 1 else [math.nan]
    responder = response >= RESPONSES.index("PR")
    # The class in which the middle of the score's distribution falls: the best guess under proportional odds.
    expected = np.searchsorted(RESPONSE_CUTS, score)
    area = roc_auc_score(responder, score) if len(set(responder)) == 2 else math.nan
    kappa = cohen_kappa_score(response, expected, weights="quadratic") if len(set(response)) > 1 else math.nan
    return {
        "subtype": {
            "balanced_accuracy": _score(float(recall), 1 / odds_NK.shape[1]),
            "macro_auroc": _score(float(np.mean(areas)), 0.5),
        },
        "response": {"auroc_responder": _score(area, 0.5), "quadratic_kappa": _score(kappa, 0.0)},
        "os": {"c_index": _score(concordance(*survival), 0.5)},
    }


def _score(reached: float, chance: float) -> dict[str, float | None]:
    return {"oracle": None if math.isnan(reached) else round(float(reached), 4), "chance": chance}
