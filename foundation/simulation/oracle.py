"""How well anyone could predict what becomes of the simulated patients: the scores of someone who knows the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from foundation.simulation.latent import LATENT, subtype_probabilities
from foundation.simulation.outcomes import RESPONSE_CUTS, RESPONSES
from foundation.simulation.subject import Subject

ROWS = 512
"""Patients compared with all others at a time in the concordance index."""

Scores = dict[str, dict[str, float | None]]


def oracle(subjects: Sequence[Subject]) -> dict[str, Scores]:
    """The scores that someone who knows the truth reaches on these patients: the ceiling of learning.

    Args:
        subjects: All patients; of each endpoint those count of whom the clinical table tells it.

    Returns:
        Endpoint to metric to ``oracle`` and ``chance``; None where the patients are too few to tell.
    """
    return {
        "subtype": _subtype([s for s in subjects if s.presence.subtype]),
        "response": _response([s for s in subjects if s.presence.response]),
        "os": _survival(subjects, "linear_predictor", "days", "event"),
        "toxicity": _toxicity([s for s in subjects if s.presence.toxicity]),
        "seizure": _survival(
            [s for s in subjects if s.presence.seizure], "seizure_score", "seizure_days", "seizure_event"
        ),
    }


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


def _subtype(known: Sequence[Subject]) -> Scores:
    subtype = np.array([s.patient.subtype for s in known])
    odds_NK = subtype_probabilities(np.reshape([s.patient.latent for s in known], (-1, len(LATENT))))
    classes = np.unique(subtype)
    areas = [_area(subtype == k, odds_NK[:, k]) for k in classes] or [math.nan]
    return {
        "balanced_accuracy": _score(_recall(subtype, odds_NK.argmax(axis=1)), 1 / odds_NK.shape[1]),
        "macro_auroc": _score(float(np.mean(areas)), 0.5),
    }


def _response(known: Sequence[Subject]) -> Scores:
    from sklearn.metrics import cohen_kappa_score

    response = _column(known, "response")
    score = _column(known, "response_score")
    # The class in which the middle of the score's distribution falls: the best guess under proportional odds.
    expected = np.searchsorted(RESPONSE_CUTS, score)
    kappa = cohen_kappa_score(response, expected, weights="quadratic") if len(set(response)) > 1 else math.nan
    return {
        "auroc_responder": _score(_area(response >= RESPONSES.index("PR"), score), 0.5),
        "quadratic_kappa": _score(kappa, 0.0),
    }


def _toxicity(known: Sequence[Subject]) -> Scores:
    toxicity, score = _column(known, "toxicity"), _column(known, "toxicity_score")
    return {
        "balanced_accuracy": _score(_recall(toxicity, score > 0), 0.5),
        "macro_auroc": _score(_area(toxicity, score), 0.5),
    }


def _survival(known: Sequence[Subject], *columns: str) -> Scores:
    return {"c_index": _score(concordance(*(_column(known, name) for name in columns)), 0.5)}


def _column(known: Sequence[Subject], name: str) -> np.ndarray:
    return np.array([getattr(s.outcome, name) for s in known])


def _recall(truth: np.ndarray, guess: np.ndarray) -> float:
    """Balanced accuracy: the recall averaged over the classes that there are."""
    from sklearn.metrics import recall_score

    return float(recall_score(truth, guess, labels=np.unique(truth), average="macro"))


def _area(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; NaN where all are of one class."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, score)) if len(set(truth)) == 2 else math.nan


def _score(reached: float, chance: float) -> dict[str, float | None]:
    return {"oracle": None if math.isnan(reached) else round(float(reached), 4), "chance": chance}
