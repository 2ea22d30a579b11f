"""A task's part of metrics.json: scores with intervals, against baselines, by group and by what was seen.

Every fold is scored by itself and, where a cohort has groups such as cancers, every group by itself, since a patient is
only compared with those of the same group. A result is the mean over groups of their means over folds.

Calibration is of the test patients of all folds together: probabilities of several folds are on one scale, as risks are
not; a p-value has no mean; and slopes of the few patients of one fold and group are mostly noise, and too steep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finetune.evaluation.compare import averaged, compare
from finetune.methods.adapted import EVERYTHING
from finetune.study import Study
from finetune.tasks.base import LOWER_IS_BETTER, Task, Truth
from foundation.metrics.score import Score, of_rows, with_interval
from foundation.report.page import Picture

FEWEST = 10
"""Patients; of fewer a resample says nothing, and an interval would look like certainty."""

EVERYBODY = "all"
"""What the patients of a cohort without groups are called."""

Frames = Mapping[str, pd.DataFrame]
"""Fold to the predictions of its test patients: ``row`` and columns of tasks behind their names."""


@dataclass(frozen=True)
class Part:
    """The test patients of one group in one fold.

    Attributes:
        fold: Its name.
        group: Its name.
        at: [n] positions among all patients that are tested in the run.
        scores: Measure to its score of these patients.
        chance: Measure to the best score of an answer that is the same for all of them; NaN where it has none.
    """

    fold: str
    group: str
    at: np.ndarray
    scores: dict[str, Score]
    chance: dict[str, float]


def _some(truth: Truth, rows: np.ndarray) -> Truth:
    return {name: {part: values[rows] for part, values in parts.items()} for name, parts in truth.items()}


@dataclass(frozen=True)
class TaskEvaluation:
    """Scores predictions of a run for one task.

    Attributes:
        study: Of the run.
        name: Of the task.
        fitted: Fold to the task as fitted on its training patients.
    """

    study: Study
    name: str
    fitted: Mapping[str, Task]

    @property
    def task(self) -> Task:
        """The task, of any fold."""
        return next(iter(self.fitted.values()))

    def parts(self, frames: Frames) -> list[Part]:
        """Every group of every fold."""
        found = []
        for fold, frame in frames.items():
            rows = frame["row"].to_numpy()
            groups, truth = self.study.groups(rows), self.study.truth(rows)
            labelled = self.task.labelled(truth)
            predicted = self._predicted(frame)
            for group in np.unique(groups[labelled]) if predicted else ():
                here = np.flatnonzero(labelled & (groups == group))
                columns = {column: values[here] for column, values in predicted.items()}
                scores = self.fitted[fold].metrics(_some(truth, here), columns, groups[here])
                chance = self._best_constants(fold, _some(truth, here), groups[here])
                found.append(Part(fold, group, np.searchsorted(self.study.tested, rows[here]), scores, chance))
        return found

    def _best_constants(self, fold: str, truth: Truth, groups: np.ndarray) -> dict[str, float]:
        """Measure to the best score of an answer that is the same for all of some test patients of a fold."""
        task, train = self.fitted[fold], next(one.train for one in self.study.folds.folds if one.name == fold)
        # Who has the same label has the same score: one patient of each label, weighed by how many have it.
        _, first, counts = np.unique(task.strata(truth), return_index=True, return_counts=True)
        best: dict[str, float] = {}
        for answer in task.constants(self.study.truth(train)):
            columns = {column: np.repeat(value, len(first), axis=0) for column, value in answer.items()}
            for name, score in task.metrics(_some(truth, first), columns, groups[first]).items():
                value = float(score(counts[None].astype(np.float64))[0])
                better = np.fmin if name.partition("/")[0] in LOWER_IS_BETTER else np.fmax
                best[name] = float(better(best.get(name, np.nan), value))
        return best

    def chance(self, parts: Sequence[Part], measure: str) -> float | None:
        """What the best constant answer gets by a measure, averaged as `score` is; None where that is not known."""
        told = [part for part in parts if np.isfinite(part.chance.get(measure, np.nan))]
        of_group = [
            np.mean([part.chance[measure] for part in told if part.group == group])
            for group in {part.group for part in told}
        ]
        if of_group:
            return float(np.mean(of_group))
        return self.task.chance if measure == self.task.primary else None

    def _predicted(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        start = f"{self.name}/"
        return {str(c).removeprefix(start): frame[c].to_numpy() for c in frame.columns if str(c).startswith(start)}

    def score(self, parts: Sequence[Part], measure: str) -> Score | None:
        """The mean over groups of means over folds, over weights of all tested patients; None where nobody has it."""
        told = [part for part in parts if measure in part.scores]
        of_group = [
            averaged([(part.at, part.scores[measure]) for part in told if part.group == group])
            for group in sorted({part.group for part in told})
        ]
        everybody = np.arange(len(self.study.tested))
        return averaged([(everybody, score) for score in of_group]) if of_group else None

    def summary(self, parts: Sequence[Part], measure: str | None = None) -> dict[str, Any]:
        """``n``, ``mean``, ``ci95``, ``chance`` and ``folds`` of a metric, by default the primary one."""
        measure = measure or self.task.primary
        score = self.score(parts, measure)
        patients = len(np.unique(np.concatenate([part.at for part in parts]))) if parts else 0
        if score is None:
            return {
                "n": patients,
                "mean": None,
                "ci95": [None, None],
                "chance": self.chance(parts, measure),
                "folds": [],
            }
        mean, bounds = with_interval(score, len(self.study.tested), self._random())
        bounds = bounds if patients >= FEWEST else [None, None]
        folds = [
            {
                "fold": fold,
                "n": sum(len(p.at) for p in here),
                "value": self._value(here, measure),
                "chance": self.chance(here, measure),
            }
            for fold in dict.fromkeys(part.fold for part in parts)
            if (here := [part for part in parts if part.fold == fold])
        ]
        chance = self.chance(parts, measure)
        return {"n": patients, "mean": _number(mean), "ci95": bounds, "chance": chance, "folds": folds}

    def _value(self, parts: Sequence[Part], measure: str) -> float | None:
        score = self.score(parts, measure)
        return None if score is None else _number(float(score(np.ones((1, len(self.study.tested))))[0]))

    def against(self, ours: Sequence[Part], theirs: Sequence[Part]) -> dict[str, Any]:
        """Summary of a baseline, and by how much ours is better."""
        found = self.summary(theirs)
        first, second = (self.score(parts, self.task.primary) for parts in (ours, theirs))
        if first is not None and second is not None:
            compared = compare(first, second, len(self.study.tested), self._random())
            found["difference"] = {
                "value": _number(compared.difference),
                "ci95": list(compared.ci95),
                "p_value": compared.p_value,
            }
        return found

    def by_group(self, ours: Sequence[Part], baselines: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
        """Summary of each group, and the mean of each baseline in it; empty where the cohort has no groups."""
        return {
            group: {
                **_without_folds(self.summary(_of(ours, group))),
                "baselines": {n: self._value(_of(parts, group), self.task.primary) for n, parts in baselines.items()},
            }
            for group in _groups(ours)
        }

    def by_subset(self, frames: Frames) -> dict[str, Any]:
        """Summary of each subset of modalities, of those who have all of it, with all else hidden."""
        subsets = dict.fromkeys(seen for frame in frames.values() for seen in frame["seen"] if seen != EVERYTHING)
        return {subset: self.summary(self.parts(where(frames, "seen", subset))) for subset in subsets}

    def by_pattern(self, frames: Frames) -> dict[str, Any]:
        """Summary of the patients of each pattern of what the model read of them; the most frequent first."""
        patterns = [*map(str, pd.concat([frame["modalities"] for frame in frames.values()]).value_counts().index)]
        found = {pattern: self.summary(self.parts(where(frames, "modalities", pattern))) for pattern in patterns}
        return {pattern: summary for pattern, summary in found.items() if summary["n"]}

    def metrics(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Summary of every metric that any fold has."""
        names = dict.fromkeys(name for part in parts for name in part.scores)
        return {name: _without_folds(self.summary(parts, name)) for name in names}

    def calibration_scores(self, frames: Frames) -> dict[str, Any]:
        """Summary of every score of calibration, of all patients."""
        return self._calibration(_once(frames)).get("scores", {})

    def calibration(self, frames: Frames) -> dict[str, Any]:
        """Group, or `EVERYBODY` in a cohort without groups, to ``n``, ``scores``, ``p_values`` and ``counts``."""
        frame = _once(frames)
        groups = self.study.groups(frame["row"].to_numpy())
        within = {group: frame.loc[groups == group] for group in sorted({*groups} - {""})} or {EVERYBODY: frame}
        found = {str(name): self._calibration(part) for name, part in within.items()}
        return {name: numbers for name, numbers in found.items() if numbers}

    def _calibration(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Of the patients of a frame, each there once; of few no interval and no p-value, of nobody nothing."""
        frame = frame.loc[self.task.labelled(self.study.truth(frame["row"].to_numpy()))]
        rows, predicted = frame["row"].to_numpy(), self._predicted(frame)
        if not len(rows) or not predicted:
            return {}
        groups, folds = self.study.groups(rows), frame["fold"].to_numpy().astype(str)
        truth = self.study.truth(rows)
        found = self.task.calibration(truth, predicted, groups, folds)
        within = {f"coverage{one.ending}": one.coverage(predicted, truth) for one in self.task.uncertain()}
        found.scores.update({name: score for name, score in within.items() if score is not None})
        if not found.scores:
            return {}
        few, at, scores = len(rows) < FEWEST, np.searchsorted(self.study.tested, rows), {}
        for name, score in found.scores.items():
            value, bounds = with_interval(of_rows(score, at), len(self.study.tested), self._random())
            bounds = [None, None] if few else bounds
            scores[name] = {"n": len(rows), "mean": _number(value), "ci95": bounds, "chance": None}
        p_values = {name: None if few else _number(value) for name, value in found.p_values.items()}
        return {"n": len(rows), "scores": scores, "p_values": p_values, "counts": found.counts}

    def counts(self) -> dict[str, Any]:
        """How many tested patients there are of each class, or with the event."""
        entry = self.study.cohort.manifest.endpoints[self.task.endpoints[0]]
        parts = self.study.truth(self.study.tested)[self.task.endpoints[0]]
        if "event" in parts:
            return {"events": int((parts["event"] > 0).sum())}
        if "classes" not in entry or len(self.task.endpoints) > 1:
            return {}
        return {"classes": {name: int((parts["code"] == k).sum()) for k, name in enumerate(entry["classes"])}}

    def pictures(self, frames: Frames) -> list[Picture]:
        """What the task draws of everybody's predictions; risks are compared within a fold only."""
        frame = _once(frames)
        rows = frame["row"].to_numpy()
        if not self.task.labelled(self.study.truth(rows)).any():
            return []
        within = np.char.add(np.char.add(self.study.groups(rows), " "), frame["fold"].to_numpy().astype(str))
        return self.task.figures(self.study.truth(rows), self._predicted(frame), within)

    def _random(self) -> np.random.Generator:
        """The same resamples for every score, so that the better of two is also better in its interval."""
        return np.random.default_rng(self.study.config.seed)


def _once(frames: Frames) -> pd.DataFrame:
    """Predictions of all folds, with the ``fold`` they are of; of a patient whom several repeats test, the first."""
    return pd.concat([frame.assign(fold=fold) for fold, frame in frames.items()]).drop_duplicates("row")


def _groups(parts: Iterable[Part]) -> list[str]:
    """Their groups; none, where the cohort has no groups."""
    return sorted({part.group for part in parts} - {""})


def _of(parts: Iterable[Part], group: str) -> list[Part]:
    return [part for part in parts if part.group == group]


def where(frames: Frames, column: str, value: str) -> dict[str, pd.DataFrame]:
    """Those predictions of which a column has a value; folds without any are left out."""
    chosen = {fold: frame.loc[frame[column] == value] for fold, frame in frames.items()}
    return {fold: frame for fold, frame in chosen.items() if len(frame)}


def _without_folds(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "folds"}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
