"""What all folds of a run share: the cohort as a model reads it, the truth about its patients, and the folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from finetune.config import FinetuneConfig
from finetune.splits import Fold, Folds, Records, refuse_seen, within_groups
from finetune.tasks.base import Task, Truth, tasks
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned
from foundation.errors import ConfigError, nearest
from foundation.hub.seen_patients import SeenPatients
from foundation.randomness import permutation

EVERYTHING = "everything"
"""TowerOutput is all that a patient has, in place of the name of a subset of modalities."""

MOST_SUBSETS = 127
"""Of modalities; where there are more, those of one, of all but one, and of all are looked at."""


@dataclass(frozen=True)
class Study:
    """The patients of a run and how they are split.

    Attributes:
        config: Of the run.
        cohort: The prepared cohort.
        modalities: What may be seen of a patient, in the cohort's order.
        folds: Of all records that take part.
        seen: Bool [N], whom the model was pretrained on; all False where that is no matter.
    """

    config: FinetuneConfig
    cohort: PreparedCohort
    modalities: tuple[str, ...]
    folds: Folds
    seen: np.ndarray

    @classmethod
    def of(
        cls, config: FinetuneConfig, cohort: PreparedCohort, modalities: Sequence[str], seen: SeenPatients | None
    ) -> Study:
        """Split a cohort's patients.

        Args:
            config: Of the run.
            cohort: The prepared cohort.
            modalities: Those that the model knows.
            seen: Whom it was pretrained on, where it comes from a folder.

        Raises:
            ConfigError: A modality or endpoint is unknown, or the patients are too few.
            DataError: Patients that were seen would be tested.
        """
        allowed = _allowed(config, cohort, modalities)
        built = [tasks.build(task, cohort.manifest.endpoints) for task in config.tasks]
        _refuse_twins(built)
        strata_N = _strata(built, cohort, np.arange(len(cohort)))
        readable_N = np.any(_present(cohort, np.arange(len(cohort)), allowed), axis=1)
        from_folder = config.pretrain not in ("per_fold", "none")
        for task in built:
            task.check({name: cohort.endpoint(name) for name in task.endpoints})
        seen_N = np.zeros(len(cohort), dtype=bool)
        if from_folder:
            seen_N = np.ones(len(cohort), dtype=bool) if seen is None else seen.among(cohort.patients)
        apart = None if config.allow_seen or seen is None else seen_N
        records = Records(cohort.patients, cohort.sites, strata_N, readable_N)
        folds = Folds.make(config.splits, records, config.seed, cohort.folds, seen=apart)
        study = cls(config, cohort, allowed, folds, seen_N)
        study._refuse_too_many_labels()
        if from_folder:
            refuse_seen(seen, cohort.patients[study.tested], allowed=config.allow_seen)
        return study

    def _refuse_too_many_labels(self) -> None:
        fewest = min(len(self.one_each(fold.train)) for fold in self.folds.folds)
        if any(count >= fewest for count in self.config.labels):
            raise ConfigError(
                f"{max(self.config.labels)} are no few of {fewest} training patients",
                where="labels",
                fix=f"name numbers below {fewest}, or leave it out",
            )

    @cached_property
    def endpoints(self) -> dict[str, dict[str, np.ndarray]]:
        """Endpoint to its parts, of every record, for the tasks of this run."""
        names = {name for task in self.tasks(None).values() for name in task.endpoints}
        return {name: self.cohort.endpoint(name) for name in sorted(names)}

    @cached_property
    def tested(self) -> np.ndarray:
        """Rows that are tested in any fold, one of each patient, ascending."""
        rows = np.unique(np.concatenate([fold.test for fold in self.folds.folds]))
        return self.one_each(rows)

    def one_each(self, rows: np.ndarray) -> np.ndarray:
        """The first record of each patient among some rows."""
        _, first = np.unique(self.cohort.patients[rows].astype(str), return_index=True)
        return rows[np.sort(first)]

    def truth(self, rows: np.ndarray) -> Truth:
        """The endpoints of some rows."""
        return {name: {part: values[rows] for part, values in parts.items()} for name, parts in self.endpoints.items()}

    def labels(self, rows: np.ndarray) -> dict[str, dict[str, Tensor]]:
        """The endpoints of some rows as a batch carries them."""
        return {
            name: {
                part: torch.from_numpy(values if values.dtype == np.int64 else values.astype(np.float32))
                for part, values in parts.items()
            }
            for name, parts in self.truth(rows).items()
        }

    def groups(self, rows: np.ndarray) -> np.ndarray:
        """Group of each row."""
        return self.cohort.groups[rows].astype(str)

    def tasks(self, train: np.ndarray | None) -> dict[str, Task]:
        """The tasks by name, in the order of the config, fitted on training rows if there are any."""
        built = [tasks.build(task, self.cohort.manifest.endpoints) for task in self.config.tasks]
        if train is not None:
            for task in built:
                task.fit(self.truth(train), self.groups(train))
        return {task.name: task for task in built}

    def weights(self) -> dict[str, float]:
        """Task to the weight of its loss."""
        return {name: task.weight for name, task in zip(self.tasks(None), self.config.tasks, strict=True)}

    def read(self, aligned: Aligned) -> Aligned:
        """The cohort as the model reads it, without the modalities that may not be seen."""
        return replace(aligned, positions={n: p for n, p in aligned.positions.items() if n in self.modalities})

    def inner(self, fold: Fold) -> list[Fold]:
        """Folds of a fold's training rows, to choose on, in which nothing of its test patients has a part."""
        return self.folds.inner(fold, _strata(list(self.tasks(None).values()), self.cohort, fold.train))

    def few(self, fold: Fold, labels: int | None) -> Fold:
        """The fold with so many training patients, the same ones for every method; with all of them for None."""
        if labels is None:
            return fold
        patients = np.unique(self.cohort.patients[fold.train].astype(str))
        chosen = patients[permutation(self.config.seed, f"few labels of {fold.name}", 0, len(patients))[:labels]]
        return Fold(fold.name, fold.train[np.isin(self.cohort.patients[fold.train].astype(str), chosen)], fold.test)

    def subsets(self) -> Iterator[tuple[str, ...]]:
        """Subsets of the modalities to look at, small ones first."""
        count = len(self.modalities)
        sizes: Sequence[int] = range(1, count + 1)
        if 2**count - 1 > MOST_SUBSETS:
            sizes = sorted({1, count - 1, count})
        for size in sizes:
            yield from combinations(self.modalities, size)

    def has(self, rows: np.ndarray, subset: Sequence[str]) -> np.ndarray:
        """Bool [N], who has all of a subset of modalities."""
        return np.all(_present(self.cohort, rows, subset), axis=1)

    def patterns(self, rows: np.ndarray) -> np.ndarray:
        """[N] what each has of the modalities, as ``mri+rna``."""
        present_NM = _present(self.cohort, rows, self.modalities)
        unique, which = np.unique(present_NM, axis=0, return_inverse=True)
        names = ["+".join(n for n, there in zip(self.modalities, row, strict=True) if there) for row in unique]
        return np.array(names, dtype=object)[which.reshape(-1)]


def _present(cohort: PreparedCohort, rows: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """Bool [N, M], which of some modalities records have."""
    return cohort.present_NM[rows][:, [cohort.modalities.index(name) for name in modalities]]


def _allowed(config: FinetuneConfig, cohort: PreparedCohort, known: Sequence[str]) -> tuple[str, ...]:
    for name in config.modalities:
        for told, there in (("the model knows", known), ("the cohort has", cohort.modalities)):
            if name not in there:
                raise ConfigError(f"{told} no modality '{name}'", where="modalities", fix=nearest(name, there))
    wanted = config.modalities or known
    allowed = tuple(name for name in cohort.modalities if name in wanted)
    omics = [name for name in allowed if cohort.manifest.modalities[name].kind == "omics"]
    for name in config.covariates:
        if name in cohort.modalities and name not in known:
            raise ConfigError(
                f"the model was pretrained without '{name}'",
                where="covariates",
                fix="pretrain with it among `preprocessing.modalities`, or leave it out here",
            )
        if name not in omics:
            raise ConfigError(f"no omics modality '{name}' may be seen", where="covariates", fix=nearest(name, omics))
    return allowed


def _refuse_twins(built: Sequence[Task]) -> None:
    names = [task.name for task in built]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two tasks are about '{name}'", where="tasks", fix="keep one of them")
        if "." in name:
            raise ConfigError(
                f"the endpoint '{name}' has a dot in its name", where="tasks", fix="rename it in the cohort"
            )


def _strata(built: Sequence[Task], cohort: PreparedCohort, rows: np.ndarray) -> np.ndarray:
    """[N] what folds of some rows spread evenly; -1 for all other rows.

    It is the outcome by the first task that a record has a label for, within its group.
    """
    strata_R = np.full(len(rows), -1)
    for task in built:
        parts = {name: cohort.endpoint(name) for name in task.endpoints}
        codes_R = task.strata({name: {part: v[rows] for part, v in one.items()} for name, one in parts.items()})
        new = (strata_R < 0) & (codes_R >= 0)
        strata_R[new] = codes_R[new] + strata_R.max(initial=-1) + 1
    strata_N = np.full(len(cohort), -1)
    strata_N[rows] = strata_R
    return within_groups(cohort.groups, strata_N)
