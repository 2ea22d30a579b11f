"""The identity of a pretraining run: what must not change between its start and its resumption."""

from __future__ import annotations

import numpy as np

from foundation.cohort.manifest import FILE as COHORT_FILE
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort
from foundation.files.hashing import sha256_of
from foundation.files.identity import hash_of, hashes_of
from pretrain.config import PretrainConfig


def identify(config: PretrainConfig, cohort: PreparedCohort, training: np.ndarray) -> dict[str, str]:
    """Everything that decides the result of a run, by name, as hashes: they tell of a change, and nothing else.

    Args:
        config: Every key of it that decides something.
        cohort: By its cohort.json, which holds the hashes of its records; several each by their own.
        training: Rows of the patients that it learns from.
    """
    patients = sorted(set(cohort.patients[training].astype(str)))
    parts = {"the training patients": hash_of(patients), **hashes_of(config.document())}
    if not isinstance(cohort, UnitedCohort):
        return {"the cohort": sha256_of(cohort.path / COHORT_FILE), **parts}
    parts["the order of the cohorts"] = hash_of(list(cohort.cohorts))
    return {f"the cohort '{n}'": sha256_of(c.path / COHORT_FILE) for n, c in cohort.cohorts.items()} | parts
