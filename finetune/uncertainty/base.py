"""What is uncertain in a task's predictions, and conformal bounds for each pattern of modalities.

Everything here is learned from predictions of training patients by models that they did not teach (those of inner
folds). The predictor of new patients learned from all of them, so that coverage is that of cross-conformal prediction
(Vovk 2015, Cross-conformal predictors): close to what is promised, and measured on the test patients of each fold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundation.errors import ConfigError
from foundation.metrics.score import Score

LEVEL = 0.9
"""Of patients, whose outcome should be within what is told."""

LEAST_LEVEL, MOST_LEVEL = 0.5, 0.99

FEWEST = 100
"""Patients with a pattern of modalities for bounds of their own; of fewer the quantile would be mostly noise."""

EVERYBODY = ""
"""In place of a pattern."""

State = dict[str, np.ndarray]


def refuse_level(level: float) -> None:
    """Refuse a share that bounds cannot be told for.

    Raises:
        ConfigError: It is out of its range.
    """
    if not LEAST_LEVEL <= level <= MOST_LEVEL:
        fix = f"give a share from {LEAST_LEVEL} to {MOST_LEVEL}"
        raise ConfigError(f"{level:g} is no share of patients that bounds are told for", where="level", fix=fix)


@dataclass(frozen=True)
class Known:
    """Patients whose outcomes are learned from.

    Attributes:
        predicted: Columns of the task [N], by models that none of these patients taught.
        truth: Endpoint to its parts [N].
        patterns: [N] modalities that each patient has, as ``mri+rna``.
        inner: [N] number of the inner fold that held the patient out.
    """

    predicted: Mapping[str, np.ndarray]
    truth: Mapping[str, Mapping[str, np.ndarray]]
    patterns: np.ndarray
    inner: np.ndarray

    def only(self, here: np.ndarray) -> Known:
        """Some of the patients; `here` is a mask."""
        truth = {name: {part: values[here] for part, values in parts.items()} for name, parts in self.truth.items()}
        predicted = {name: values[here] for name, values in self.predicted.items()}
        return Known(predicted, truth, self.patterns[here], self.inner[here])


class Uncertain(ABC):
    """One thing that a task predicts.

    Attributes:
        endpoint: That it is about.
        ending: Of its columns, ``/ENDPOINT`` where a task has several.
    """

    endpoint: str
    ending: str = ""

    @abstractmethod
    def learn(self, known: Known) -> None:
        """Learn from patients whose outcome is known; those without one are passed over."""

    @abstractmethod
    def tell(
        self, predicted: Mapping[str, np.ndarray], patterns: np.ndarray, level: float = LEVEL
    ) -> dict[str, np.ndarray]:
        """Columns [N] beside those of predictions.

        Args:
            predicted: Columns of the task [N].
            patterns: [N] modalities that each patient has.
            level: Share of patients whose outcome should be within what is told.
        """

    @abstractmethod
    def coverage(self, told: Mapping[str, np.ndarray], truth: Mapping[str, Mapping[str, np.ndarray]]) -> Score | None:
        """Share of patients whose outcome is within what was told, over weights of all N; None where nothing was."""

    @abstractmethod
    def state(self) -> State:
        """What was learned."""

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave."""


def bounds(score_N: np.ndarray, patterns_N: np.ndarray) -> State:
    """Nonconformity of patients, ascending: of everybody, and of each pattern that enough of them have.

    To take the quantile within a pattern is Mondrian conformal prediction (Vovk et al. 2005, Algorithmic learning in a
    random world): it covers who has a scan alone as often as who has everything.
    """
    found = {EVERYBODY: np.sort(score_N)}
    for pattern, count in zip(*np.unique(patterns_N, return_counts=True), strict=True):
        if count >= FEWEST:
            found[str(pattern)] = np.sort(score_N[patterns_N == pattern])
    return found


def bound_of(found: Mapping[str, np.ndarray], patterns_N: np.ndarray, level: float) -> np.ndarray:
    """[N] the nonconformity that a share of `level` of patients does not exceed; infinite where too few are known."""
    return of_patterns({pattern: _quantile(score_S, level) for pattern, score_S in found.items()}, patterns_N)


def of_patterns(found: Mapping[str, Any], patterns_N: np.ndarray) -> np.ndarray:
    """[N, ...] what each pattern has, or everybody where it has nothing of its own."""
    unique, which_N = np.unique(patterns_N.astype(str), return_inverse=True)
    return np.array([found.get(str(pattern), found[EVERYBODY]) for pattern in unique])[which_N]


def _quantile(score_S: np.ndarray, level: float) -> float:
    place = int(np.ceil((len(score_S) + 1) * level)) - 1
    return float(score_S[place]) if place < len(score_S) else np.inf


def joined(parts: Mapping[str, Mapping[str, np.ndarray]]) -> State:
    """Several states as one, each behind its name."""
    return {f"{name}:{key}": values for name, state in parts.items() for key, values in state.items()}


def parted(state: Mapping[str, np.ndarray], name: str) -> State:
    """The one of `joined` that has a name."""
    return {key.removeprefix(f"{name}:"): v for key, v in state.items() if key.startswith(f"{name}:")}
