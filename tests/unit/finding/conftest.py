"""What was learned to be found in the cohort `drawn`, and what is found in it."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.cohort.store import PreparedCohort
from foundation.finding.finder import Finder


@pytest.fixture(scope="session")
def scanned(drawn: PreparedCohort) -> np.ndarray:
    """Rows with a scan."""
    return np.flatnonzero(drawn.present_NM[:, drawn.modalities.index("mri")])


@pytest.fixture(scope="session")
def finder(drawn: PreparedCohort, scanned: np.ndarray) -> Finder:
    return Finder.learn(drawn, "tumour", scanned, seed=0)


@pytest.fixture(scope="session")
def described(finder: Finder, drawn: PreparedCohort, scanned: np.ndarray) -> np.ndarray:
    return finder.described(drawn, scanned)
