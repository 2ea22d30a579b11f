"""What becomes of the simulated patients: survival, response, toxicity and seizures, drawn from the latent.

Survival and response follow weighted sums of the latent: a linear model of a frozen embedding sees them. Toxicity
follows a product of two dimensions, and the first seizure a product of three. Each of these has mean 0, is symmetric
and independent of the others, so that a weight on it alone only makes a linear model worse; in a product of three, so
does one on any pair. Two rules choose them. A weighted sum of the scan's voxels must not see the product, as it sees
where a tumour lies together with how bright or how large it is. And death, which ends the follow-up of seizures, must
not favour one side of a dimension: of those of seizures it knows only necrosis, faintly, through stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foundation.simulation.latent import Patient
from foundation.simulation.streams import stream

RESPONSES = ("PD", "SD", "PR", "CR")
"""RECIST, worst first; the last two are responders."""

HAZARD = {"size": 0.7, "texture": 0.6, "brightness": 0.5, "side": -0.4}
"""Log hazard per unit of the latent."""

HAZARD_PER_DECADE, HAZARD_PER_STAGE = 0.2, 0.15

RESPONSE = {"necrosis": -1.1, "texture": -0.9, "depth": 0.9, "size": -0.5}
"""Log odds of a better response per unit of the latent."""

RESPONSE_CUTS = (-1.8, 0.2, 2.2)

TOXICITY = {("height", "texture"): 3.5}
"""Log odds of severe toxicity per unit of a product of latent dimensions."""

SEIZURE = {("height", "elongation", "necrosis"): 2.0}
"""Log hazard of a first seizure per unit of a product of latent dimensions."""

WEIBULL_SHAPE, WEIBULL_SCALE, SEIZURE_SCALE = 1.3, 1100.0, 600.0
ACCRUAL_DAYS, STUDY_DAYS, LOST_AFTER_DAYS = 1095.0, 2555.0, 5000.0


@dataclass(frozen=True)
class Outcome:
    """What became of a patient, and the truth that it was drawn from.

    Attributes:
        days: Time to death or to the last follow-up, at least 1.
        event: 1 died, 0 censored.
        linear_predictor: Log hazard relative to the baseline.
        response: Position in `RESPONSES`.
        response_score: Log odds of a better response, before the cuts.
        toxicity: Whether treatment had severe side effects.
        toxicity_score: Log odds of them.
        seizure_days: Time to the first seizure, or to `days`, at least 1.
        seizure_event: 1 had a seizure, 0 censored.
        seizure_score: Log hazard of a seizure relative to the baseline.
    """

    days: int
    event: int
    linear_predictor: float
    response: int
    response_score: float
    toxicity: bool
    toxicity_score: float
    seizure_days: int
    seizure_event: int
    seizure_score: float


def draw_outcome(seed: int, patient: Patient) -> Outcome:
    """Draw an outcome: Weibull hazards of death and of a seizure, proportional odds of response, odds of toxicity.

    The study's end and loss to follow-up censor survival; seizures are followed as long as the patient is.
    """
    random = stream(seed, "outcome", patient.index)
    log_hazard = sum(weight * patient.value(name) for name, weight in HAZARD.items())
    log_hazard += HAZARD_PER_DECADE * (patient.age - 60) / 10 + HAZARD_PER_STAGE * (patient.stage - 2)
    death = _weibull(random, WEIBULL_SCALE, log_hazard)
    study_ends = STUDY_DAYS - random.uniform(0, ACCRUAL_DAYS)
    lost = random.exponential(LOST_AFTER_DAYS)
    last_seen = min(study_ends, lost)
    response_score = sum(weight * patient.value(name) for name, weight in RESPONSE.items())
    response = int(np.searchsorted(RESPONSE_CUTS, response_score + random.logistic()))
    days = _whole_days(min(death, last_seen))
    toxicity_score, seizure_score = _products(TOXICITY, patient), _products(SEIZURE, patient)
    seizure = _whole_days(_weibull(stream(seed, "seizure", patient.index), SEIZURE_SCALE, seizure_score))
    return Outcome(
        days=days,
        event=int(death <= last_seen),
        linear_predictor=log_hazard,
        response=response,
        response_score=response_score,
        toxicity=toxicity_score + stream(seed, "toxicity", patient.index).logistic() > 0,
        toxicity_score=toxicity_score,
        seizure_days=min(seizure, days),
        seizure_event=int(seizure <= days),
        seizure_score=seizure_score,
    )


def _weibull(random: np.random.Generator, scale: float, log_hazard: float) -> float:
    return scale * (random.standard_exponential() / math.exp(log_hazard)) ** (1 / WEIBULL_SHAPE)


def _whole_days(time: float) -> int:
    return max(1, math.ceil(time))


def _products(weights: Mapping[tuple[str, ...], float], patient: Patient) -> float:
    return sum(weight * math.prod(map(patient.value, names)) for names, weight in weights.items())
