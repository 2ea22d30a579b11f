"""What all folds of a run share: the cohort as the model reads it, the tasks, the true outcomes, and the folds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from finetune.config import FinetuneConfig
from finetune.leakage import refuse_seen
from finetune.splits import Fold, Folds, Records, within_groups
from finetune.tasks.base import Task, Truth, tasks
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned
from foundation.data.preprocessing import Preprocessing
from foundation.data.presence import observed_N
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.errors import ConfigError, nearest
from foundation.finding.cohort import FoundCohort, FoundEntry
from foundation.finding.finder import Finder, names_of
from foundation.model.seen_patients import SeenPatients
from foundation.progress import Progress
from foundation.randomness import permutation
from foundation.wording import counted

MOST_SUBSETS = 127
"""Of modalities; where there are more, those of one, of all but one, and of all are scored."""


@dataclass(frozen=True)
class Study:
    """The patients of a run and how they are split.

    Attributes:
        config: Of the run.
        cohort: The prepared cohort.
        modalities: What may be seen of a patient, in the cohort's order.
        folds: Of all records that take part.
        seen: Bool [N], whom the model was pretrained on; all False where that is no matter.
        heads_only: Of the modalities, covariates that the model does not know: no tower reads them, heads do.
    """

    config: FinetuneConfig
    cohort: PreparedCohort
    modalities: tuple[str, ...]
    folds: Folds
    seen: np.ndarray
    heads_only: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        config: FinetuneConfig,
        cohort: PreparedCohort,
        modalities: Sequence[str],
        seen: SeenPatients | None,
        aligned: Aligned | None = None,
    ) -> Study:
        """Split a cohort's patients.

        Args:
            config: Of the run.
            cohort: The prepared cohort.
            modalities: Those that the model knows.
            seen: Whom it was pretrained on, where it comes from a folder.
            aligned: The cohort as that model reads it; None where the model is still to be made.

        Raises:
            ConfigError: A modality or endpoint is unknown, or the patients are too few.
            DataError: Patients that were seen would be tested.
        """
        allowed = _allowed(config, cohort, modalities)
        built = [tasks.build(task, cohort.manifest.endpoints) for task in config.tasks]
        _refuse_twins(built)
        _refuse_nothing_to_learn(built, cohort, _readable(cohort, allowed, aligned))
        strata_N = _strata(built, cohort, np.arange(len(cohort)))
        readable_N = _readable(cohort, allowed, aligned)
        from_folder = config.pretrain not in ("per_fold", "none")
        for task in built:
            task.check({name: cohort.endpoint(name) for name in task.endpoints})
        seen_N = np.zeros(len(cohort), dtype=bool)
        if from_folder:
            seen_N = np.ones(len(cohort), dtype=bool) if seen is None else seen.among(cohort.patients)
        apart = None if config.allow_seen or seen is None else seen_N
        records = Records(cohort.patients, cohort.sites, strata_N, readable_N)
        folds = Folds.make(config.splits, records, config.seed, cohort.folds, seen=apart)
        heads_only = tuple(name for name in allowed if name not in modalities)
        study = cls(config, cohort, allowed, folds, seen_N, heads_only)
        study._refuse_too_many_labels()
        study._refuse_covariates_of_nobody()
        if from_folder:
            refuse_seen(seen, cohort.patients[study.tested], allowed=config.allow_seen)
        return study

    def _refuse_too_many_labels(self) -> None:
        fewest = min(len(self.one_each(fold.train)) for fold in self.folds.folds)
        if any(count >= fewest for count in self.config.labels):
            raise ConfigError(
                f"{max(self.config.labels)} is not fewer than the {fewest} training patients of the smallest fold",
                where="labels",
                fix=f"write numbers below {fewest}, or leave `labels` out",
            )

    def _refuse_covariates_of_nobody(self) -> None:
        """Refuse folds of whose training patients nothing is learned of a covariate that the model does not know."""
        for name in self.heads_only:
            has_N = _has(self.cohort, name)
            for fold in self.folds.folds:
                for labels in (None, *self.config.labels):
                    train = self.few(fold, labels).train
                    if not has_N[train].any():
                        raise ConfigError(
                            f"none of {counted(len(self.one_each(train)), 'training patient')} of fold {fold.name} has "
                            f"'{name}', which the model does not know either",
                            where="covariates",
                            fix="leave it out there",
                        )

    @cached_property
    def endpoints(self) -> dict[str, dict[str, np.ndarray]]:
        """Endpoint to its parts, of every record, for the tasks of this run."""
        names = {name for task in self.unfitted for name in task.endpoints}
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

    def labels(self, rows: np.ndarray, device: torch.device) -> dict[str, dict[str, Tensor]]:
        """The endpoints of some rows as a batch carries them."""
        return {
            name: {
                part: torch.from_numpy(values if values.dtype == np.int64 else values.astype(np.float32)).to(device)
                for part, values in parts.items()
            }
            for name, parts in self.truth(rows).items()
        }

    def loss_of(self, task: Task, rows: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Outputs for some rows to their loss; choices are judged by it too: a rank statistic of so few is noise."""
        return task.loss_of(self.labels(rows, device), self.groups(rows).tolist())

    def groups(self, rows: np.ndarray) -> np.ndarray:
        """Group of each row."""
        return self.cohort.groups[rows].astype(str)

    @cached_property
    def unfitted(self) -> tuple[Task, ...]:
        """The tasks in the order of the config, before they have learned from anybody."""
        return tuple(tasks.build(task, self.cohort.manifest.endpoints) for task in self.config.tasks)

    def tasks(self, train: np.ndarray) -> dict[str, Task]:
        """The tasks by name, fitted on training rows."""
        fitted = {task.name: copy.deepcopy(task) for task in self.unfitted}
        for task in fitted.values():
            task.fit(self.truth(train), self.groups(train))
        return fitted

    def finding(self, fold: Fold, progress: Progress | None = None) -> Study:
        """The study of one fold, whose cohort has what is found in images by what its training records taught.

        Raises:
            ConfigError: Too few of them have a drawing.
        """
        if not isinstance(self.cohort, FoundCohort):
            return self
        of = self.cohort.of
        learned = {name: Finder.learn(of, name, fold.train, self.config.seed, progress) for name in self.config.find}
        return replace(self, cohort=FoundCohort(of, learned, progress))

    def fit_heads_only(self, fold: Fold) -> Preprocessing | None:
        """Scaling of the covariates that the model does not know, fitted on training rows; None where it knows all."""
        if not self.heads_only:
            return None
        return fit_preprocessing(self.cohort, fold.train, PreprocessingConfig(modalities=[*self.heads_only]))

    @cached_property
    def weights(self) -> dict[str, float]:
        """Task to the weight of its loss."""
        return {task.name: task.config.weight for task in self.unfitted}

    def inner(self, fold: Fold) -> list[Fold]:
        """Folds of a fold's training rows, to choose on, in which nothing of its test patients has a part."""
        return self.folds.inner(fold, _strata(self.unfitted, self.cohort, fold.train), self.inner_by(fold))

    def inner_by(self, fold: Fold) -> Literal["patient", "site"]:
        """What inner folds of a fold keep together: patients also where some sites alone would teach nothing."""
        by = self.folds.inner_by(fold)
        if by == "patient":
            return by
        inner = self.folds.inner(fold, _strata(self.unfitted, self.cohort, fold.train), by)
        untaught = any(task.untaught(self.truth(one.train)) for one in inner for task in self.unfitted)
        return "patient" if untaught else by

    def inner_by_patient(self) -> list[str]:
        """Names of folds by site whose inner folds are by patient."""
        if self.config.splits.by == "patient":
            return []
        return [fold.name for fold in self.folds.folds if self.inner_by(fold) == "patient"]

    def few(self, fold: Fold, labels: int | None) -> Fold:
        """The fold with so many training patients, the same ones for every method; with all of them for None."""
        if labels is None:
            return fold
        patients = np.unique(self.cohort.patients[fold.train].astype(str))
        chosen = patients[permutation(self.config.seed, f"few labels of {fold.name}", 0, len(patients))[:labels]]
        return Fold(fold.name, fold.train[np.isin(self.cohort.patients[fold.train].astype(str), chosen)], fold.test)

    def subsets(self) -> Iterator[tuple[str, ...]]:
        """Subsets of the modalities to score, small ones first."""
        count = len(self.modalities)
        sizes: Sequence[int] = range(1, count + 1)
        if 2**count - 1 > MOST_SUBSETS:
            sizes = sorted({1, count - 1, count})
        for size in sizes:
            yield from combinations(self.modalities, size)


def _readable(cohort: PreparedCohort, modalities: Sequence[str], aligned: Aligned | None) -> np.ndarray:
    """Bool [N], who has anything of some modalities: that model or heads read, or that was measured at all."""
    if aligned is None:
        here = [cohort.modalities.index(name) for name in modalities]
        return np.logical_or.reduce(cohort.present_NM[:, here], axis=1)
    present_NM, _ = aligned.only(modalities).presence(np.arange(len(cohort)))
    others = [_has(cohort, name) for name in modalities if name not in aligned.modalities]
    return np.logical_or.reduce([*present_NM.T, *others])


def _has(cohort: PreparedCohort, name: str) -> np.ndarray:
    """Bool [N], of whom any feature of an omics modality was observed."""
    return observed_N(cohort, name, np.arange(len(cohort)), np.arange(len(cohort.features[name])))


def _allowed(config: FinetuneConfig, cohort: PreparedCohort, known: Sequence[str]) -> tuple[str, ...]:
    """What may be seen of a patient: what the model knows, and covariates whether it does or not."""
    omics = [name for name, entry in cohort.manifest.modalities.items() if entry.kind == "omics"]
    read = [*known, *config.read_by_heads()]
    for name in config.modalities:
        if name not in cohort.modalities:
            fix = nearest(name, cohort.modalities)
            raise ConfigError(f"the cohort has no modality '{name}'", where="modalities", fix=fix)
        if name not in read:
            fix = "name it among `covariates` too, and heads alone read it" if name in omics else nearest(name, known)
            raise ConfigError(f"the model knows no modality '{name}'", where="modalities", fix=fix)
    for name in config.read_by_heads():
        if name not in omics:
            what = f"no omics modality of the cohort is called '{name}'"
            raise ConfigError(what, where="covariates", fix=nearest(name, omics))
        entry = cohort.manifest.modalities[name]
        of = entry.image if isinstance(entry, FoundEntry) else name
        if config.modalities and of not in config.modalities:
            fix = "add it to `modalities`, or leave it out of `covariates`"
            raise ConfigError(f"'{of}' may not be seen: `modalities` leaves it out", where="covariates", fix=fix)
    # What is found in an image is seen of the image.
    allowed = [*config.modalities, *names_of(config.find)] if config.modalities else read
    return tuple(name for name in cohort.modalities if name in allowed)


def _refuse_twins(built: Sequence[Task]) -> None:
    names = [task.name for task in built]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two tasks predict the endpoint '{name}'", where="tasks", fix="keep one of them")
        if "." in name:
            raise ConfigError(
                f"the endpoint '{name}' has a dot in its name", where="tasks", fix="rename it in the cohort"
            )


def _refuse_nothing_to_learn(built: Sequence[Task], cohort: PreparedCohort, readable_N: np.ndarray) -> None:
    for task in built:
        parts = {name: cohort.endpoint(name) for name in task.endpoints}
        reason = task.untaught({name: {k: v[readable_N] for k, v in one.items()} for name, one in parts.items()})
        if reason:
            raise ConfigError(
                f"nothing can be learned of the patients who have any of the modalities: {reason}",
                where=f"endpoint '{task.name}'",
                fix="leave that endpoint out of `tasks`, or check what the cohort's YAML says of its words",
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
