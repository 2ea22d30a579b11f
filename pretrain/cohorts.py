"""The cohorts of a run, opened as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort
from foundation.data.alignment import align
from foundation.data.preprocessing import Preprocessing
from foundation.errors import ConfigError, DataError
from foundation.urls import is_url
from pretrain.config import PretrainConfig


def open_cohorts(config: PretrainConfig) -> PreparedCohort:
    """The cohort of a run, or its cohorts as one.

    Raises:
        ConfigError: One is named twice, or what equal names of patients mean was not said.
        DataError: One cannot be read, or two prepared a modality differently.
        StoreError: The store of one keeps failing.
    """
    afar = sum(is_url(part.path) for part in config.parts)
    opened = [PreparedCohort(part.path, cache=config.cache, sharing=max(1, afar)) for part in config.parts]
    if len(opened) == 1:
        return opened[0]
    _refuse_twice(config, "path", [place_of(part.path) for part in config.parts])
    _refuse_twice(config, "content", [cohort.hash for cohort in opened])
    names = [part.name or cohort.manifest.name for part, cohort in zip(config.parts, opened, strict=True)]
    _refuse_twice(config, "name", names)
    cohorts = dict(zip(names, opened, strict=True))
    return UnitedCohort(cohorts, config.preprocessing.modalities, config.equal_names)


def place_of(path: Path | str) -> str:
    """Where a cohort is, in one spelling."""
    return str(path.resolve()) if isinstance(path, Path) else path.rstrip("/")


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


def refuse_unreadable(cohort: PreparedCohort, preprocessing: Preprocessing) -> None:
    """Refuse to train on a cohort that the model, once trained, would refuse to read by itself.

    Raises:
        DataError: It has too few of the features of all, or none of the modalities.
    """
    for name, part in cohort.cohorts.items() if isinstance(cohort, UnitedCohort) else ():
        try:
            align(preprocessing, part)
        except DataError as error:
            raise DataError(
                f"the model would not read this cohort by itself: {error.what}",
                where=f"cohorts, '{name}'",
                fix="lower `preprocessing.minimum_overlap`, raise `preprocessing.minimum_observed`, name modalities "
                "that it has in `preprocessing.modalities`, or leave the cohort out",
            ) from None
