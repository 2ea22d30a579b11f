"""What a run is: what must not change between its start and its resumption, told key by key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from foundation.cohort.manifest import FILE as COHORT_FILE
from foundation.cohort.staging import sha256_of
from foundation.cohort.store import PreparedCohort
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
        "the training patients": _hash(patients),
    }
    return parts | {key: _hash(value) for key, value in _leaves(config.document())}


def _leaves(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys, as one writes them on the command line, and their values."""
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
