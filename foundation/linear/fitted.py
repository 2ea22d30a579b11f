"""What fits of linear models are: a few arrays that predict from inputs, and that can be written and read back.

Here K counts all classes of an endpoint and J those that somebody in training has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from foundation.linear.ordinal import class_probabilities


@dataclass(frozen=True, eq=False)
class Fitted(ABC):
    """A fitted linear model; the same arrays give the same predictions to the last bit."""

    def __post_init__(self) -> None:
        for name in self.names():
            # A copy of its own and in order: over memory of another layout, sums are rounded in another order.
            object.__setattr__(self, name, np.array(getattr(self, name), order="C"))

    @classmethod
    def names(cls) -> list[str]:
        """Of its arrays."""
        return [field.name for field in fields(cls)]

    def state(self) -> dict[str, np.ndarray]:
        """Its arrays by name."""
        return {name: getattr(self, name) for name in self.names()}

    @classmethod
    def of(cls, state: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `state`.

        Raises:
            KeyError: An array is missing.
        """
        return cls(**{name: state[name] for name in cls.names()})

    @abstractmethod
    def __call__(self, x_ND: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs [N, D] to ``probability`` [N, K], ``risk`` [N] or ``value`` [N]."""


@dataclass(frozen=True, eq=False)
class LogHazard(Fitted):
    """A log hazard relative to a baseline that is not here.

    Attributes:
        weights_D: [D]; all 0 where there was no event.
    """

    weights_D: np.ndarray

    def __call__(self, x_ND: np.ndarray) -> dict[str, np.ndarray]:
        """``risk`` [N]; higher means an earlier event."""
        return {"risk": x_ND @ self.weights_D}


@dataclass(frozen=True, eq=False)
class Classes(Fitted):
    """Probabilities of classes by multinomial logistic regression.

    Attributes:
        occurs_K: [K] bool; classes that nobody in training has get no probability.
        weights_JD: [J, D].
        intercepts_J: [J].
    """

    occurs_K: np.ndarray
    weights_JD: np.ndarray
    intercepts_J: np.ndarray

    def __call__(self, x_ND: np.ndarray) -> dict[str, np.ndarray]:
        """``probability`` [N, K]."""
        logits_NJ = x_ND @ self.weights_JD.T + self.intercepts_J
        odds_NJ = np.exp(logits_NJ - logits_NJ.max(axis=1, keepdims=True))
        return _of_all(self.occurs_K, odds_NJ / odds_NJ.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class OrderedClasses(Fitted):
    """Probabilities of ordered classes, by cuts along one direction: see `foundation.linear.ordinal`.

    Attributes:
        occurs_K: [K] bool; classes that nobody in training has get no probability.
        weights_D: [D].
        cuts: [J - 1], ascending.
    """

    occurs_K: np.ndarray
    weights_D: np.ndarray
    cuts: np.ndarray

    def __call__(self, x_ND: np.ndarray) -> dict[str, np.ndarray]:
        """``probability`` [N, K]."""
        return _of_all(self.occurs_K, class_probabilities(x_ND @ self.weights_D, self.cuts))


@dataclass(frozen=True, eq=False)
class Number(Fitted):
    """A number.

    Attributes:
        weights_D: [D].
        intercept: [].
    """

    weights_D: np.ndarray
    intercept: np.ndarray

    def __call__(self, x_ND: np.ndarray) -> dict[str, np.ndarray]:
        """``value`` [N]."""
        return {"value": x_ND @ self.weights_D + self.intercept}


def _of_all(occurs_K: np.ndarray, probability_NJ: np.ndarray) -> dict[str, np.ndarray]:
    of_all_NK = np.zeros((len(probability_NJ), len(occurs_K)))
    of_all_NK[:, occurs_K] = probability_NJ
    return {"probability": of_all_NK}
