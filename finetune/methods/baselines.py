"""Linear baselines: fitted on training rows, under penalties that inner folds choose, and predicted out of fold.

Everything is learned on the training rows of a fold, and every penalty is chosen on inner folds of them, by the rule of
`foundation.linear.selection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import CLINICAL, LearnedInputs
from finetune.methods.linear_model import EVERYBODY, LinearModel
from finetune.methods.linear_parts import BaselineHazard, Part
from finetune.splits import Fold
from foundation.cohort.manifest import ImageEntry
from foundation.cohort.store import PreparedCohort
from foundation.errors import ConfigError, nearest
from foundation.finding.cohort import FoundEntry
from foundation.linear.learners import LEARNERS, Learner, Parts
from foundation.linear.selection import choose_penalty

MOLECULAR = "molecular"
IMAGE = "image"
FOUND = "found"

BASELINES: dict[str, tuple[str, ...]] = {
    "clinical": (CLINICAL,),
    "image": (IMAGE,),
    "omics": (MOLECULAR,),
    "clinical + omics": (CLINICAL, MOLECULAR),
    "found regions": (FOUND,),
    "clinical + found regions": (CLINICAL, FOUND),
}
"""Name to the kinds of modalities that it reads."""

FEWEST_EVENTS = 2
"""Fewer teach nothing of a group: its patients stay alike."""

Penalty = Callable[[str, str, Learner, np.ndarray, np.ndarray], float]
"""Of the group, the ending of the column, the learner, inputs [N, D] and rows [N]: the penalty to fit under."""


def available(cohort: PreparedCohort, modalities: Sequence[str] | None = None) -> list[str]:
    """Baselines that there is something to fit on for.

    Args:
        cohort: The prepared cohort.
        modalities: Those that the task may read; all by default.
    """
    kinds = set(_kinds(cohort, modalities).values())
    return [name for name, needs in BASELINES.items() if kinds.issuperset(needs)]


def labelled_N(parts: Parts) -> np.ndarray:
    """[N] bool, whose outcome is known; `parts` as `PreparedCohort.endpoint` gives them."""
    return parts["code"] >= 0 if "code" in parts else np.isfinite(next(iter(parts.values())))


def fit(
    name: str,
    cohort: PreparedCohort,
    endpoint: str,
    train: np.ndarray,
    inner: Sequence[Fold],
    modalities: Sequence[str] | None = None,
    images: ImageFeatures | None = None,
    known: LearnedInputs | None = None,
    *,
    balanced: bool = True,
) -> LinearModel:
    """Fit a baseline on training rows.

    A model of survival is fitted in each group (each cancer) by itself, since only patients of one group are compared.

    Args:
        name: Of the baseline.
        cohort: The prepared cohort.
        endpoint: Of the cohort, known for every training row.
        train: Rows; one per patient, lest a patient count twice.
        inner: Folds of the training rows, to choose penalties on.
        modalities: Those that the task may read; all by default.
        images: Of the cohort; who holds on to it reads each image once for all folds.
        known: Of the cohort; who holds on to it learns inputs that endpoints share once.
        balanced: Whether every class counts as much; else every patient does.

    Raises:
        ConfigError: The cohort lacks what the baseline reads.
        ValueError: A training row has no label.
    """
    if name not in available(cohort, modalities):
        fix = nearest(name, available(cohort, modalities))
        raise ConfigError(f"the cohort has no data for the baseline '{name}'", where=str(cohort.path), fix=fix)
    names = tuple(n for n, kind in _kinds(cohort, modalities).items() if kind in BASELINES[name])
    images, known = images or ImageFeatures(cohort), known or LearnedInputs()
    fitting = _Fitting(name, cohort, endpoint, names, images, known, balanced)

    def chosen(group: str, ending: str, learner: Learner, x_ND: np.ndarray, rows: np.ndarray) -> float:
        return choose_penalty(learner, x_ND, rows, [np.isin(rows, fold.test) for fold in inner])

    return fitting.fit(train, chosen)


def out_of_fold(
    model: LinearModel,
    cohort: PreparedCohort,
    train: np.ndarray,
    inner: Sequence[Fold],
    images: ImageFeatures | None = None,
    known: LearnedInputs | None = None,
    times: Sequence[float] = (),
    *,
    balanced: bool = True,
) -> dict[str, np.ndarray]:
    """Predict a baseline's own training rows, each by a fit on the inner folds that hold it out.

    Each inner fold is fitted anew from its training rows alone: what it reads, its weights and its baseline hazards.
    Only the penalties are those of `model`. So the outcome of a patient does not reach his own prediction, except
    through the choice of those penalties, one for all training rows (of a group, and of a kind of event).

    Args:
        model: The baseline, as `fit` gave it for the same training rows and inner folds.
        cohort: That it was fitted on.
        train: The training rows.
        inner: Folds of them; other rows of these folds have no part in it.
        images: Of the cohort.
        known: Of the cohort.
        times: As in `LinearModel.predict`.
        balanced: As in `fit`.

    Returns:
        As of `LinearModel.predict`, for all training rows in their order; NaN for those that no inner fold holds out,
        or one that leaves nobody to learn from. Of a row that several hold out, by the last of them.
    """
    images, known = images or ImageFeatures(cohort), known or LearnedInputs()
    fitting = _Fitting(model.baseline, cohort, model.endpoint, model.modalities, images, known, balanced)

    def chosen(group: str, ending: str, learner: Learner, x_ND: np.ndarray, rows: np.ndarray) -> float:
        return model.parts[group].penalty[ending]

    spread: dict[str, np.ndarray] = {}
    for fold in inner:
        learn, held_out = (np.flatnonzero(np.isin(train, side)) for side in (fold.train, fold.test))
        if not len(learn):
            continue
        said = fitting.fit(train[learn], chosen).predict(cohort, train[held_out], images, times)
        for column, values in said.items():
            shape = (len(train), *values.shape[1:])
            spread.setdefault(column, np.full(shape, np.nan))[held_out] = values
    return spread


def predict(
    name: str,
    cohort: PreparedCohort,
    endpoint: str,
    fold: Fold,
    inner: Sequence[Fold],
    modalities: Sequence[str] | None = None,
    images: ImageFeatures | None = None,
) -> dict[str, np.ndarray]:
    """Fit a baseline on the training rows of a fold and predict its test rows; see `fit` and `LinearModel.predict`."""
    images = images or ImageFeatures(cohort)
    return fit(name, cohort, endpoint, fold.train, inner, modalities, images).predict(cohort, fold.test, images)


@dataclass(frozen=True)
class _Fitting:
    """Fits a baseline to an endpoint of a cohort, on any rows.

    Attributes:
        baseline: Its name.
        cohort: The prepared cohort.
        endpoint: Of the cohort.
        modalities: That the baseline may read.
        images, known: Of the cohort.
        balanced: Whether every class counts as much.
    """

    baseline: str
    cohort: PreparedCohort
    endpoint: str
    modalities: tuple[str, ...]
    images: ImageFeatures
    known: LearnedInputs
    balanced: bool

    def fit(self, train: np.ndarray, penalty: Penalty) -> LinearModel:
        """Fit on training rows under the penalties that `penalty` gives."""
        if not labelled_N(self.cohort.endpoint(self.endpoint))[train].all():
            raise ValueError(f"not every training row has a label of '{self.endpoint}'")
        declared, learners = _declared(self.cohort, self.endpoint), self._learners()
        parts = {group: self._part(group, rows, learners, penalty) for group, rows in self._groups(declared, train)}
        others = Part(hazards=_hazards(learners, train, {})) if declared["kind"] == "survival" else Part()
        return LinearModel(self.baseline, self.endpoint, declared, self.modalities, parts, others)

    def _groups(self, declared: Mapping[str, Any], train: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """For survival each group and its rows; else everybody."""
        if declared["kind"] != "survival":
            yield EVERYBODY, train
            return
        groups_N = self.cohort.groups[train].astype(str)
        for group in np.unique(groups_N).tolist():
            yield group, train[groups_N == group]

    def _part(self, group: str, rows: np.ndarray, learners: Mapping[str, Learner], penalty: Penalty) -> Part:
        fitted, penalties, risks = {}, {}, {}
        inputs = None
        survival = all("event" in learner.parts for learner in learners.values())
        for ending, learner in learners.items():
            if survival and learner.parts["event"][rows].sum() < FEWEST_EVENTS:
                continue
            inputs, x_ND = self.known.learn(self.cohort, self.modalities, self.images, rows)
            penalties[ending] = penalty(group, ending, learner, x_ND, rows)
            fitted[ending] = learner.fit(x_ND, rows, penalties[ending])
            if survival:
                risks[ending] = fitted[ending](x_ND)["risk"]
        return Part(inputs, fitted, penalties, _hazards(learners, rows, risks) if survival else {})

    def _learners(self) -> dict[str, Learner]:
        """Ending of a column to the learner of what it is about."""
        entry, parts = self.cohort.manifest.endpoints[self.endpoint], self.cohort.endpoint(self.endpoint)
        kind, classes = LEARNERS[entry["kind"]], len(entry.get("classes", ()))
        return {
            ending: kind(of_cause, self.cohort.groups, classes, balanced=self.balanced)
            for ending, of_cause in _causes(entry, parts).items()
        }


def _hazards(
    learners: Mapping[str, Learner], rows: np.ndarray, risks: Mapping[str, np.ndarray]
) -> dict[str, BaselineHazard]:
    """Baseline hazards on some rows, with log hazards [N] where there are some."""
    return {
        ending: BaselineHazard.of(
            risks.get(ending, np.zeros(len(rows))), learner.parts["time"][rows], learner.parts["event"][rows]
        )
        for ending, learner in learners.items()
    }


def _declared(cohort: PreparedCohort, endpoint: str) -> dict[str, Any]:
    """What a model tells of its endpoint: nothing that counts patients."""
    entry = cohort.manifest.endpoints[endpoint]
    names = {key: list(entry[key]) for key in ("classes", "causes") if entry.get(key)}
    return {"kind": entry["kind"], **names, **({"unit": entry["unit"]} if "unit" in entry else {})}


def _causes(entry: Mapping[str, Any], parts: Parts) -> dict[str, Parts]:
    """Ending of a column to the endpoint that it is about: of each kind of event, to which others are censoring."""
    if not entry.get("causes"):
        return {"": parts}
    return {f"/{cause}": {**parts, "event": parts["event"] == c} for c, cause in enumerate(entry["causes"], start=1)}


def _kinds(cohort: PreparedCohort, modalities: Sequence[str] | None) -> dict[str, str]:
    """Modalities of the cohort to their kind."""
    entries = cohort.manifest.modalities

    def kind(name: str) -> str:
        if isinstance(entries[name], ImageEntry):
            return IMAGE
        if isinstance(entries[name], FoundEntry):
            return FOUND
        return CLINICAL if name == CLINICAL else MOLECULAR

    return {name: kind(name) for name in modalities or cohort.modalities if name in entries}
