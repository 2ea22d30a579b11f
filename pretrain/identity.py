"""The identity of a pretraining run: what must not change between its start and its resumption."""

from __future__ import annotations

import numpy as np

from foundation.cohort.manifest import FILE as COHORT_FILE
from foundation.cohort.store import PreparedCohort
from foundation.files.hashing import sha256_of
from foundation.files.identity import hash_of, hashes_of
from pretrain.config import PretrainConfig


def identify(config: PretrainConfig, cohort: PreparedCohort, training: np.ndarray) -> dict[str, str]:
    """Everything that decides the result of a run, by name, as hashes: they tell of a change, and nothing else.

    Args:
        config: Every key of it that decides something.
        cohort: By its cohort.json, which holds the hashes of its records.
        training: Rows of the patients that it learns from.
    """
    patients = sorted(set(cohort.patients[training].astype(str)))
    parts = {
        "the cohort": sha256_of(cohort.path / COHORT_FILE),
        "the training patients": hash_of(patients),
    }
    return parts | hashes_of(config.document())
