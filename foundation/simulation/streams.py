"""Random streams by purpose and patient, so that no draw depends on how many others were made."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A generator of its own for one purpose, such as ``stream(seed, "scan", 17)``.

    Args:
        seed: The cohort's seed, at least 0.
        purpose: What is drawn.
        numbers: Patient, sample or site that it is drawn for.
    """
    key = (zlib.crc32(purpose.encode()), *numbers)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
