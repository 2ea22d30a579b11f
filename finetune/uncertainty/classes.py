"""Of classes: probabilities that can be taken at their word, and the set that holds the true class.

Probabilities are calibrated by a scale of their logarithms, as a temperature is (Guo et al. 2017, On calibration of
modern neural networks), and an intercept of each class (Platt 1999): a model of balanced classes gives the rare ones
more than their share. Each pattern of modalities has its own, drawn towards those of everybody; how strongly, inner
folds choose. The set holds every class whose probability is not too low (Sadinle et al. 2019, Least ambiguous
set-valued classifiers), and always the likeliest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from finetune.uncertainty.base import (
    EVERYBODY,
    LEVEL,
    Known,
    State,
    Uncertain,
    bound_of,
    bounds,
    joined,
    of_patterns,
    parted,
)
from foundation.metrics.score import Score, mean, of_rows

TOWARDS_NONE = 0.1
"""Strength of the pull towards no change, in patients for a change of 1."""

TOWARDS_EVERYBODY = (1e6, 1000.0, 100.0, 10.0)
"""Likewise, of a pattern's calibrators towards everybody's, to choose from; the first leaves none of their own."""

LEAST = 1e-12
"""Of a probability, in logarithms."""

BETWEEN = " | "
"""The names of classes in a set."""


class OfClasses(Uncertain):
    """One of several classes.

    Args:
        endpoint: That it is about.
        classes: Their names, in the order of their codes.
        columns: Of the probability of each, or of the second alone where there are two.
        code: From the truth to the code [N] of each patient, -1 where not known.
        ordered: Whether classes are in an order, so that a set has no gaps.
        ending: Of the columns that are told.
    """

    def __init__(
        self,
        endpoint: str,
        classes: Sequence[str],
        columns: Sequence[str],
        code: Callable[[Mapping[str, Mapping[str, np.ndarray]]], np.ndarray],
        *,
        ordered: bool = False,
        ending: str = "",
    ) -> None:
        self.endpoint, self.ending = endpoint, ending
        self.classes, self.columns, self.code, self.ordered = list(classes), list(columns), code, ordered
        self._calibrators: dict[str, np.ndarray] = {EVERYBODY: np.zeros(1 + len(self.classes))}
        self._bounds: State = {EVERYBODY: np.zeros(0)}

    def learn(self, known: Known) -> None:
        """Calibrators, and how improbable the true class may be; see `Uncertain.learn`.

        A patient's nonconformity is by calibrators that were learned on other inner folds.
        """
        known = known.only(self.code(known.truth) >= 0)
        code_N, log_NK, patterns_N = self.code(known.truth), self._logs(known.predicted), known.patterns
        found = {s: _held_out(log_NK, code_N, patterns_N, known.inner, s) for s in TOWARDS_EVERYBODY}
        place = np.arange(len(code_N)), code_N
        strength = max(found, key=lambda s: np.log(np.maximum(found[s][place], LEAST)).mean())
        self._calibrators, probability_NK = _calibrators(log_NK, code_N, patterns_N, strength), found[strength]
        self._bounds = bounds(self._unlikely(probability_NK)[place], patterns_N)

    def tell(
        self, predicted: Mapping[str, np.ndarray], patterns: np.ndarray, level: float = LEVEL
    ) -> dict[str, np.ndarray]:
        """``calibrated/…`` like each ``probability/…``, and the ``set`` of classes; see `Uncertain.tell`."""
        probability_NK = _calibrated(self._logs(predicted), patterns, self._calibrators)
        told_NK = self._unlikely(probability_NK) <= bound_of(self._bounds, patterns, level)[:, None]
        told_NK |= probability_NK == probability_NK.max(axis=1, keepdims=True)
        sets = [BETWEEN.join(name for name, told in zip(self.classes, row, strict=True) if told) for row in told_NK]
        last_NK = probability_NK[:, -len(self.columns) :]
        names = (column.replace("probability/", "calibrated/", 1) for column in self.columns)
        return dict(zip(names, last_NK.T, strict=True)) | {f"set{self.ending}": np.array(sets, dtype=object)}

    def coverage(self, told: Mapping[str, np.ndarray], truth: Mapping[str, Mapping[str, np.ndarray]]) -> Score | None:
        """Whether the true class is in the set; see `Uncertain.coverage`."""
        code_N = self.code(truth)
        known = code_N >= 0
        if f"set{self.ending}" not in told or not known.any():
            return None
        sets = told[f"set{self.ending}"][known]
        pairs = zip(sets, code_N[known], strict=True)
        return of_rows(mean(np.array([self.classes[k] in one.split(BETWEEN) for one, k in pairs], float)), known)

    def state(self) -> State:
        """See `Uncertain.state`."""
        return joined({"calibrators": self._calibrators, "bounds": self._bounds})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Uncertain.restore`."""
        self._calibrators, self._bounds = parted(state, "calibrators"), parted(state, "bounds")

    def _unlikely(self, probability_NK: np.ndarray) -> np.ndarray:
        """[N, K] nonconformity of each class: how improbable it is.

        A class between two others of an order counts as the less probable of these, where it is less probable itself:
        so a set has no gaps, and covers no more for it.
        """
        unlikely_NK = 1 - probability_NK
        if not self.ordered:
            return unlikely_NK
        below_NK = np.minimum.accumulate(unlikely_NK, axis=1)
        above_NK = np.minimum.accumulate(unlikely_NK[:, ::-1], axis=1)[:, ::-1]
        return np.maximum(below_NK, above_NK)

    def _logs(self, predicted: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N, K] logarithms of probabilities."""
        told_NK = np.stack([predicted[column] for column in self.columns], axis=1).astype(np.float64)
        if len(self.columns) < len(self.classes):
            told_NK = np.concatenate([1 - told_NK, told_NK], axis=1)
        return np.log(np.maximum(told_NK, LEAST))


def _held_out(
    log_NK: np.ndarray, code_N: np.ndarray, patterns_N: np.ndarray, inner_N: np.ndarray, strength: float
) -> np.ndarray:
    """[N, K] probabilities, of each inner fold by calibrators that were learned on the others."""
    probability_NK, folds = np.empty_like(log_NK), np.unique(inner_N)
    for number in folds:
        here = inner_N == number
        others = ~here if len(folds) > 1 else here
        learned = _calibrators(log_NK[others], code_N[others], patterns_N[others], strength)
        probability_NK[here] = _calibrated(log_NK[here], patterns_N[here], learned)
    return probability_NK


def _calibrators(
    log_NK: np.ndarray, code_N: np.ndarray, patterns_N: np.ndarray, strength: float
) -> dict[str, np.ndarray]:
    """Pattern to the logarithm of a scale and an intercept of each class [1 + K]."""
    neutral = np.zeros(1 + log_NK.shape[1])
    everybody = _fit(log_NK, code_N, neutral, TOWARDS_NONE)
    found = {EVERYBODY: everybody}
    for pattern in np.unique(patterns_N):
        here = patterns_N == pattern
        found[str(pattern)] = _fit(log_NK[here], code_N[here], everybody, strength)
    return found


def _fit(log_NK: np.ndarray, code_N: np.ndarray, towards: np.ndarray, strength: float) -> np.ndarray:
    """Scale and intercepts under which the true classes are likeliest, near others."""
    true_NK = np.eye(log_NK.shape[1])[code_N]

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        scale = np.exp(at[0])
        log_probability_NK = log_softmax(scale * log_NK + at[1:], axis=1)
        slope_NK = np.exp(log_probability_NK) - true_NK
        slope = np.append(scale * (slope_NK * log_NK).sum(), slope_NK.sum(axis=0))
        value = -(log_probability_NK * true_NK).sum() + strength / 2 * ((at - towards) ** 2).sum()
        return value, slope + strength * (at - towards)

    return minimize(objective, towards, jac=True, method="L-BFGS-B").x


def _calibrated(log_NK: np.ndarray, patterns_N: np.ndarray, calibrators: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N, K] probabilities."""
    of_each = of_patterns(calibrators, patterns_N).reshape(len(log_NK), 1 + log_NK.shape[1])
    return np.exp(log_softmax(np.exp(of_each[:, :1]) * log_NK + of_each[:, 1:], axis=1))
