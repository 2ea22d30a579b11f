"""The identity of a pretraining run: what must not change between its start and its resumption."""

from __future__ import annotations

import numpy as np

from foundation.cohort.people import distinct
from foundation.cohort.store import PreparedCohort
from foundation.files.identity import hash_of, hashes_of
from pretrain.config import PretrainConfig


def identify(config: PretrainConfig, cohort: PreparedCohort, training: np.ndarray) -> dict[str, str]:
    """Everything that decides the result of a run, by name, as hashes: they tell of a change, and nothing else.

    Args:
        config: Every key of it that decides something.
        cohort: By its cohort.json, which holds the hashes of its records.
        training: Rows of the patients that it learns from.
    """
    patients = distinct(cohort.patients[training]).tolist()
    parts = {
        "the cohort": cohort.hash,
        "the training patients": hash_of(patients),
    }
    return parts | hashes_of(config.document())
