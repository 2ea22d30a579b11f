"""The cohorts of a run, opened as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from foundation.cohort.manifest import FILE as COHORT_FILE
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort
from foundation.errors import ConfigError
from foundation.files.hashing import sha256_of
from pretrain.config import PretrainConfig


def open_cohorts(config: PretrainConfig) -> PreparedCohort:
    """The cohort of a run, or its cohorts as one.

    Raises:
        ConfigError: One is named twice, or what equal names of patients mean was not said.
        DataError: One cannot be read, or two prepared a modality differently.
    """
    opened = [PreparedCohort(part.path) for part in config.parts]
    if len(opened) == 1:
        return opened[0]
    _refuse_twice(config, "path", [str(part.path.resolve()) for part in config.parts])
    _refuse_twice(config, "content", [sha256_of(cohort.path / COHORT_FILE) for cohort in opened])
    names = [part.name or cohort.manifest.name for part, cohort in zip(config.parts, opened, strict=True)]
    _refuse_twice(config, "name", names)
    cohorts = dict(zip(names, opened, strict=True))
    return UnitedCohort(cohorts, config.preprocessing.modalities, config.equal_names)


def _refuse_twice(config: PretrainConfig, what: str, values: Sequence[str]) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            places = [part.path for part, other in zip(config.parts, values, strict=True) if other == value]
            raise ConfigError(
                f"two are called '{value}'" if what == "name" else f"'{places[0]}' and '{places[1]}' are one cohort",
                where="cohorts",
                fix="give one of the two another `name`"
                if what == "name"
                else "name each cohort once, and give it a `weight` if its records are to be drawn more often",
            )


def own_names(cohort: PreparedCohort) -> np.ndarray:
    """[N] patient of every record, as their cohort calls them: the names that fine-tuning will ask for."""
    return cohort.own_names if isinstance(cohort, UnitedCohort) else cohort.patients
