"""Who is held out: patients, or whole sites, that training never sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from foundation.cohort.people import numbered
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import own_names
from foundation.config import Config, YamlPath
from foundation.errors import ConfigError, DataError
from foundation.randomness import permutation
from foundation.wording import counted


class HeldOut(Config):
    """Patients that training never sees; evaluation is on them."""

    fraction: float | None = Field(default=0.2, gt=0, lt=1, description="Drawn at random; null where they are named.")
    patients: YamlPath | None = Field(
        default=None, description="Text file that names exactly those to hold out, one patient per line."
    )
    by: Literal["patient", "site"] = Field(default="patient", description="`site` holds whole sites out.")

    @model_validator(mode="before")
    @classmethod
    def _names_replace_the_fraction(cls, data: Any) -> Any:
        named = isinstance(data, dict) and data.get("patients") is not None
        return {"fraction": None, **data} if named else data

    @model_validator(mode="after")
    def _chosen_in_one_way(self) -> HeldOut:
        if (self.fraction is None) == (self.patients is None):
            raise ValueError("give either `fraction` or `patients`")
        if self.patients is not None and self.by == "site":
            raise ValueError("a file of `patients` cannot be held out `by: site`: leave out one of them")
        return self

    def training_records(self, records: int) -> float:
        """About how many of a cohort's records are left to train on, as if each patient had one."""
        if self.patients is not None:
            return records - len(read_patients(self.patients))
        assert self.fraction is not None
        return records * (1 - self.fraction)


def split(cohort: PreparedCohort, held_out: HeldOut, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out; all records of a patient, or of a site, on one side.

    Raises:
        ConfigError: One side would be empty.
        DataError: The file of patients cannot be read, or names somebody who is not in the cohort.
    """
    units = cohort.sites if held_out.by == "site" else cohort.patients
    names, number_N = numbered(units)
    if held_out.patients is not None:
        own = own_names(cohort).astype(str)
        named = _known(held_out.patients, np.union1d(names, own))
        # Who is named as in one cohort of several is held out of all that use the name.
        outside = np.isin(units.astype(str), named) | np.isin(own, named)
    else:
        assert held_out.fraction is not None
        order = permutation(seed, "held out", 0, len(names))
        chosen = np.zeros(len(names), dtype=bool)
        chosen[order[: round(held_out.fraction * len(names))]] = True
        outside = chosen[number_N]
    if outside.all() or not outside.any():
        count = np.count_nonzero(np.bincount(number_N[outside]))
        raise ConfigError(
            f"holding out {count} of {counted(len(names), held_out.by)} leaves one side empty",
            where="held_out",
            fix="use another `fraction`, name fewer `patients`, or use `by: patient`",
        )
    return np.flatnonzero(~outside), np.flatnonzero(outside)


def read_patients(path: Path) -> list[str]:
    """Names of patients, sorted, of a text file with one per line.

    Raises:
        DataError: It cannot be read, or names nobody.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = "is not text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(path), fix="correct `held_out.patients`") from None
    names = sorted({line.strip() for line in lines} - {""})
    if not names:
        raise DataError("names no patient", where=str(path), fix="write one patient per line")
    return names


def _known(path: Path, patients: np.ndarray) -> list[str]:
    """Patients of a file, all of the cohort."""
    names = read_patients(path)
    strangers = sorted(set(names) - set(patients))
    if strangers:
        raise DataError(
            f"{counted(len(strangers), 'patient is', 'patients are')} not in the cohort, first '{strangers[0]}'",
            where=str(path),
            fix="name patients as the cohort does, one per line",
        )
    return names
