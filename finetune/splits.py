"""Folds of a cohort's patients: who trains, who is held out, and who takes no part and why.

All records of a patient, and on request of a site, are on one side. What a fold chooses (an epoch, a penalty) it
chooses on inner folds of its training patients, split by the same rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.dealing import deal, members, pack
from finetune.leakage import refuse_overlap
from foundation.config import Config
from foundation.errors import ConfigError, DataError
from foundation.randomness import draw
from foundation.wording import counted


class SplitConfig(Config):
    """How patients are split into folds."""

    published: bool = Field(default=False, description="Use the folds that were published with the cohort.")
    folds: int = Field(default=5, ge=2, description="How many, where they are not published.")
    repeats: int = Field(default=1, ge=1, description="How often to split anew, each time in another order.")
    inner_folds: int = Field(default=5, ge=2, description="Of the training patients of a fold, to choose on.")
    by: Literal["patient", "site"] = Field(default="patient", description="What is never on both sides of a fold.")

    @model_validator(mode="after")
    def _published_folds_are_as_they_are(self) -> SplitConfig:
        if self.published and self.repeats > 1:
            raise ValueError("published folds cannot be repeated: leave out `repeats`")
        return self


@dataclass(frozen=True)
class Fold:
    """One split of the records that take part.

    Attributes:
        name: ``0``, ``1`` …, with the repeat before it where there are several (``2.0``), or as published.
        train: Rows of the cohort to train and to choose on, ascending.
        test: Rows that are scored, ascending.
    """

    name: str
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Records:
    """What a split depends on, one of each per record of a cohort, [N].

    Attributes:
        patients: Names.
        sites: Names, empty where unknown.
        strata: Codes of what every fold should have its share of, -1 where a record has no label and takes no part.
        readable: Whether a record has anything that may be seen of it; None where all have.
    """

    patients: np.ndarray
    sites: np.ndarray
    strata: np.ndarray
    readable: np.ndarray | None = None

    def units(self, config: SplitConfig, rows: np.ndarray) -> np.ndarray:
        """Names of what must not be on both sides, of some rows."""
        return (self.sites if config.by == "site" else self.patients)[rows].astype(str)

    def sides(self, config: SplitConfig, fold: Fold) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Names in training and in test, of patients and where split by site of sites too."""
        sides = {"patient": (self.patients[fold.train], self.patients[fold.test])}
        if config.by == "site":
            sides["site"] = (self.sites[fold.train], self.sites[fold.test])
        return sides


@dataclass(frozen=True)
class Folds:
    """All folds of a run; the same (records, config, seed) give the same.

    Attributes:
        config: How they were made.
        seed: Of the order of patients.
        records: What was split.
        folds: In order.
        left_out: Reason to the number of patients who take no part.
        only_train: [N] bool: the record is never tested, because a pretrained model has seen its patient or site.
    """

    config: SplitConfig
    seed: int
    records: Records
    folds: list[Fold]
    left_out: dict[str, int]
    only_train: np.ndarray

    @classmethod
    def make(
        cls,
        config: SplitConfig,
        records: Records,
        seed: int,
        published: Mapping[str, Mapping[str, str]] | None = None,
        seen: np.ndarray | None = None,
    ) -> Folds:
        """Split the records that have a label.

        Args:
            config: How.
            records: Of the whole cohort.
            seed: Of the order of patients.
            published: Fold to patient to ``train``, ``val`` or ``test``, as `PreparedCohort.folds` gives it.
            seen: [N] bool: a pretrained model has learned from the record's patient, who then trains in every fold,
                together with all of their site where split by site. Published folds stay as they are.

        Raises:
            ConfigError: There are fewer patients or sites that may be tested than folds, or no published folds.
            DataError: A patient or site would be on both sides of a fold.
        """
        rows, left_out = _taking_part(config, records, published)
        only_train = _only_train(config, records, seen)
        if config.published:
            folds = [_published(name, records, rows, split) for name, split in (published or {}).items()]
        else:
            folds = [
                fold
                for repeat in range(config.repeats)
                for fold in _split(config, records, rows, only_train, config.folds, seed, f"folds of repeat {repeat}")
            ]
        if config.repeats > 1:
            folds = [Fold(f"{i // config.folds}.{f.name}", f.train, f.test) for i, f in enumerate(folds)]
        for fold in folds:
            refuse_overlap(records.sides(config, fold), fold.name)
        return cls(config, seed, records, folds, left_out, only_train)

    def inner_by(self, fold: Fold) -> Literal["patient", "site"]:
        """What inner folds keep together: as folds do, but patients where training has too few sites."""
        sites = len(np.unique(self.records.sites[fold.train].astype(str)))
        return "patient" if sites < self.config.inner_folds else self.config.by

    def inner(
        self, fold: Fold, strata_N: np.ndarray | None = None, by: Literal["patient", "site"] | None = None
    ) -> list[Fold]:
        """Folds of a fold's training rows, to choose on; no row of its test side is in them.

        Whom a pretrained model has seen is in them like anybody else: it saw no labels, and to choose on the few others
        would be to choose at random.

        Args:
            fold: One of these.
            strata_N: [N] what inner folds spread evenly, as learned from training rows; that of the records by default.
            by: What is never on both sides; that of `inner_by` by default.
        """
        purpose = f"inner folds of {fold.name}"
        nobody = np.zeros(len(self.records.patients), dtype=bool)
        records = self.records if strata_N is None else replace(self.records, strata=strata_N)
        config = self.config.model_copy(update={"by": by or self.inner_by(fold)})
        return _split(config, records, fold.train, nobody, config.inner_folds, self.seed, purpose)

    def used(self) -> np.ndarray:
        """Names of the patients who take part."""
        rows = np.concatenate([rows for fold in self.folds for rows in (fold.train, fold.test)])
        return np.unique(self.records.patients[rows].astype(str))

    def hash(self) -> str:
        """SHA-256 of who is on which side of every fold; of hashed patients, so that it gives nobody away."""
        digest = hashlib.sha256()
        for fold in self.folds:
            for side in (fold.train, fold.test):
                names = np.unique(self.records.patients[side].astype(str))
                hashed = sorted(hashlib.sha256(name.encode()).hexdigest() for name in names)
                digest.update("\n".join([fold.name, *hashed, ""]).encode())
        return digest.hexdigest()

    def counts(self) -> dict[str, Any]:
        """What a report says of the split: the hash, patients used, left out and never tested, and each fold's."""
        patients = self.records.patients
        return {
            "hash": self.hash(),
            "by": self.config.by,
            "published": self.config.published,
            "repeats": self.config.repeats,
            "patients": len(self.used()),
            "left_out": self.left_out,
            "seen_train_only": len(np.intersect1d(self.used(), patients[self.only_train].astype(str))),
            "folds": [
                {"fold": fold.name, "train": len(set(patients[fold.train])), "test": len(set(patients[fold.test]))}
                for fold in self.folds
            ],
        }


def within_groups(groups_N: np.ndarray, strata_N: np.ndarray) -> np.ndarray:
    """[N] codes of group and stratum together, so that each fold has its share of every group; -1 stays -1."""
    pairs = np.stack([np.unique(groups_N.astype(str), return_inverse=True)[1], strata_N], axis=1)
    codes_N = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    return np.where(strata_N < 0, -1, codes_N)


def _taking_part(
    config: SplitConfig, records: Records, published: Mapping[str, Mapping[str, str]] | None
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows that take part, and for those patients who have none the reason, to their number."""
    patients = records.patients.astype(str)
    checks = {"no label": records.strata >= 0}
    if records.readable is not None:
        checks["none of the modalities"] = records.readable
    if config.published:
        if not published:
            raise ConfigError(
                "the cohort has no published folds",
                where="splits.published",
                fix="leave it out, or name `folds` in the cohort's YAML",
            )
        named = {patient for split in published.values() for patient in split}
        checks["in no published fold"] = np.isin(patients, list(named))
    if config.by == "site":
        checks["no site"] = records.sites.astype(str) != ""
    takes_part = np.ones(len(patients), dtype=bool)
    left_out = {}
    for reason, passed in checks.items():
        before = set(patients[takes_part])
        takes_part &= passed
        gone = len(before - set(patients[takes_part]))
        if gone:
            left_out[reason] = gone
    return np.flatnonzero(takes_part), left_out


def _only_train(config: SplitConfig, records: Records, seen: np.ndarray | None) -> np.ndarray:
    """[N] bool: what must not be on both sides holds a patient that was seen; nothing, where folds are published."""
    only_train = np.zeros(len(records.patients), dtype=bool)
    if seen is None or config.published:
        return only_train
    patients, sites = records.patients.astype(str), records.sites.astype(str)
    only_train = np.isin(patients, patients[seen])
    return only_train | np.isin(sites, sites[only_train]) if config.by == "site" else only_train


def _published(name: str, records: Records, rows: np.ndarray, split: Mapping[str, str]) -> Fold:
    """A published fold; where it has both, ``test`` is scored and ``val`` is there to choose on, like ``train``."""
    side = np.array([split.get(patient, "") for patient in records.patients[rows].astype(str)])
    scored = "test" if "test" in split.values() else "val"
    fold = Fold(name, rows[(side != scored) & (side != "")], rows[side == scored])
    if not len(fold.train) or not len(fold.test):
        raise DataError(
            f"has {len(fold.train)} training records and {len(fold.test)} test records with a label; both are needed",
            where=f"fold {name}",
            fix="mend the published folds, or let `splits.folds` make them",
        )
    return fold


def _split(
    config: SplitConfig,
    records: Records,
    rows: np.ndarray,
    only_train: np.ndarray,
    count: int,
    seed: int,
    purpose: str,
) -> list[Fold]:
    """`count` folds of some rows, stratified; of those that only train, [N] bool, none is tested."""
    tested = rows[~only_train[rows]]
    units, first, unit_of = np.unique(records.units(config, tested), return_index=True, return_inverse=True)
    if len(units) < count:
        raise _too_few(config, len(units), len(np.unique(records.units(config, rows))), count)
    order = draw(seed, purpose, units, np.zeros(len(units), dtype=np.int64), 1)[:, 0]
    if config.by == "site":
        fold_of = pack(members(records.patients[tested], records.strata[tested], unit_of), order, count)
    else:
        fold_of = deal(records.strata[tested[first]], order, count)
    tests = [tested[fold_of[unit_of] == k] for k in range(count)]
    return [Fold(str(k), np.setdiff1d(rows, test), test) for k, test in enumerate(tests)]


def _too_few(config: SplitConfig, left: int, units: int, count: int) -> ConfigError:
    """Why units of which some were seen, or none, cannot be split."""
    if left < count <= units:
        return ConfigError(
            f"only {left} of {counted(units, config.by)} were not seen in pretraining: too few for {count} folds",
            where="pretrain",
            fix="pretrain with a larger `held_out`, set `pretrain: per_fold`, or set `allow_seen: true`, which the "
            "report then says",
        )
    fewer = "use fewer folds"
    return ConfigError(
        f"{counted(units, config.by)} cannot be split into {count} folds",
        where="splits",
        fix=fewer if config.by == "patient" else "split by patient" if units < 2 else f"{fewer}, or split by patient",
    )
