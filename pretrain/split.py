"""Who is held out: patients, or whole sites, that training never sees."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from foundation.cohort.store import PreparedCohort
from foundation.config import Config
from foundation.data.randomness import permutation
from foundation.errors import ConfigError


class HeldOut(Config):
    """Patients that training never sees; evaluation is on them."""

    fraction: float = Field(default=0.2, gt=0, lt=1)
    by: Literal["patient", "site"] = Field(default="patient", description="`site` holds whole sites out.")


def split(cohort: PreparedCohort, held_out: HeldOut, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out; all records of a patient, or of a site, on one side.

    Raises:
        ConfigError: One side would be empty.
    """
    units = cohort.sites if held_out.by == "site" else cohort.patients
    names = np.unique(units.astype(str))
    order = permutation(seed, "held out", 0, len(names))
    chosen = names[order[: round(held_out.fraction * len(names))]]
    outside = np.isin(units.astype(str), chosen)
    if outside.all() or not outside.any():
        raise ConfigError(
            f"{len(names)} {held_out.by}s cannot be split with fraction {held_out.fraction:g}",
            where="held_out",
            fix="use another fraction, or `by: patient`",
        )
    return np.flatnonzero(~outside), np.flatnonzero(outside)
