"""Linear models, one for each kind of endpoint: fitted under a penalty, how they predict, how they are judged.

A learner knows the outcomes of all patients; it is given inputs and the rows of those whom it may learn from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from foundation.linear.cox import fit_cox, partial_likelihood
from foundation.linear.fitted import Classes, Fitted, LogHazard, Number, OrderedClasses
from foundation.linear.ordinal import fit_proportional_odds

LEAST_PROBABILITY = 1e-6
"""A class that a fit thinks impossible counts as this probable, so that one patient cannot decide alone."""

Parts = dict[str, np.ndarray]
"""What an endpoint is made of, [N] each: ``code`` of a class, ``time`` and ``event``, or ``value``."""

Predict = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Inputs [N, D] to ``probability`` [N, K], ``risk`` [N] or ``value`` [N]."""


class Learner(ABC):
    """A linear model of one kind of endpoint.

    Args:
        parts: The endpoint of all patients, [N] each.
        groups: [N] names.
        classes: How many a ``code`` is one of, of which the last may be nobody's; as many as occur by default.
        balanced: Whether every class counts as much, however many patients have it; else every patient does.
    """

    penalties: ClassVar[tuple[float, ...]]
    """The most cautious first."""

    fitted: ClassVar[type[Fitted]]
    """What its fits are, which is the way back from their arrays."""

    def __init__(self, parts: Parts, groups: np.ndarray, classes: int = 0, *, balanced: bool = True) -> None:
        self.parts = parts
        self.balanced = balanced
        self.groups = groups.astype(str)
        self.classes = max(classes, int(parts["code"].max(initial=-1)) + 1) if "code" in parts else 0

    def fit(self, x_ND: np.ndarray, rows: np.ndarray, penalty: float) -> Fitted:
        """Fit on rows whose inputs are `x_ND`; what comes back predicts from the inputs of any."""
        return next(self.path(x_ND, rows, [penalty]))

    @abstractmethod
    def path(self, x_ND: np.ndarray, rows: np.ndarray, penalties: Sequence[float]) -> Iterator[Fitted]:
        """Fit under one penalty after the other; a search may begin where the one before ended."""

    @abstractmethod
    def cv_log_likelihood(self, predict: Predict, x_ND: np.ndarray, rows: np.ndarray, held_out_N: np.ndarray) -> float:
        """How likely those of the rows are that were held out of the fit; higher is better.

        Args:
            predict: A fit on the other rows.
            x_ND: [N, D] inputs of the rows.
            rows: [N] of all patients.
            held_out_N: [N] bool.
        """


class CoxLearner(Learner):
    """Survival by ridge Cox, with a baseline hazard for each group.

    What counts is what the held-out patients add to the partial likelihood: its value over all rows less that over the
    fitted ones (Verweij and van Houwelingen, Cross-validation in survival analysis, Stat Med 1993).
    """

    penalties = tuple(10.0 ** (power / 2) for power in range(2, -7, -1))
    fitted = LogHazard

    def path(self, x_ND: np.ndarray, rows: np.ndarray, penalties: Sequence[float]) -> Iterator[Fitted]:
        """Fit log hazards; where there is no event they are equal."""
        time_N, event_N = (self.parts[part][rows] for part in ("time", "event"))
        weights_D = np.zeros(x_ND.shape[1])
        for penalty in penalties:
            if event_N.any():
                weights_D = fit_cox(x_ND, time_N, event_N, self.groups[rows], penalty, start_D=weights_D)
            yield LogHazard(weights_D)

    def cv_log_likelihood(self, predict: Predict, x_ND: np.ndarray, rows: np.ndarray, held_out_N: np.ndarray) -> float:
        """What the held-out rows add to the partial likelihood."""
        risk_N = predict(x_ND)["risk"]

        def of(these: np.ndarray) -> float:
            at = rows[these]
            return partial_likelihood(risk_N[these], self.parts["time"][at], self.parts["event"][at], self.groups[at])

        return of(np.ones(len(rows), dtype=bool)) - of(~held_out_N)


class LogisticLearner(Learner):
    """Classes by multinomial logistic regression; what weighs the same in the fit does so in what counts."""

    penalties = tuple(10.0**power for power in range(4, -2, -1))
    fitted: ClassVar[type[Fitted]] = Classes

    def path(self, x_ND: np.ndarray, rows: np.ndarray, penalties: Sequence[float]) -> Iterator[Fitted]:
        """Fit the probability of every class."""
        from sklearn.linear_model import LogisticRegression

        occurs_K, code_N = self._occurring(rows)
        classes, width = occurs_K.sum(), x_ND.shape[1]
        weight = "balanced" if self.balanced else None
        model = LogisticRegression(class_weight=weight, max_iter=2000, warm_start=True)
        for penalty in penalties:
            if classes == 1:
                yield Classes(occurs_K, np.zeros((1, width)), np.zeros(1))
                continue
            model.set_params(C=1 / penalty).fit(_at_least_one(x_ND), code_N)
            weights, intercepts = model.coef_[:, :width], np.asarray(model.intercept_)
            if classes == 2:
                # scikit-learn gives the log odds of the second class; those of the first are their measure.
                weights, intercepts = np.vstack([0 * weights, weights]), np.append(0.0, intercepts)
            yield Classes(occurs_K, weights, intercepts)

    def _occurring(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[K] bool, which classes some rows have, and [N] the class of each, counted among those."""
        occurring, code_N = np.unique(self.parts["code"][rows], return_inverse=True)
        return np.isin(np.arange(self.classes), occurring), code_N

    def cv_log_likelihood(self, predict: Predict, x_ND: np.ndarray, rows: np.ndarray, held_out_N: np.ndarray) -> float:
        """Mean log probability of the right class: over classes of the mean of each where balanced, else of all."""
        code_N = self.parts["code"][rows[held_out_N]]
        probability_N = predict(x_ND[held_out_N])["probability"][np.arange(len(code_N)), code_N]
        log_N = np.log(np.maximum(probability_N, LEAST_PROBABILITY))
        if not self.balanced:
            return float(log_N.mean())
        return float(np.mean([log_N[code_N == code].mean() for code in np.unique(code_N)]))


class OrdinalLearner(LogisticLearner):
    """Ordered classes by ridge proportional odds; the upper classes together are the responders."""

    penalties = tuple(10.0**power for power in range(1, -5, -1))
    fitted = OrderedClasses

    def path(self, x_ND: np.ndarray, rows: np.ndarray, penalties: Sequence[float]) -> Iterator[Fitted]:
        """Fit one direction from the lowest class to the highest."""
        occurs_K, code_N = self._occurring(rows)
        for penalty in penalties:
            yield OrderedClasses(occurs_K, *fit_proportional_odds(x_ND, code_N, penalty))


class RidgeLearner(Learner):
    """A number by ridge regression."""

    penalties = tuple(10.0**power for power in range(6, -2, -1))
    fitted = Number

    def path(self, x_ND: np.ndarray, rows: np.ndarray, penalties: Sequence[float]) -> Iterator[Fitted]:
        """Fit the number."""
        from sklearn.linear_model import Ridge

        for penalty in penalties:
            model = Ridge(alpha=penalty).fit(_at_least_one(x_ND), self.parts["value"][rows])
            yield Number(model.coef_[: x_ND.shape[1]], np.asarray(model.intercept_))

    def cv_log_likelihood(self, predict: Predict, x_ND: np.ndarray, rows: np.ndarray, held_out_N: np.ndarray) -> float:
        """Less the mean squared error: what normal errors of one spread leave of the log-likelihood."""
        error_N = predict(x_ND[held_out_N])["value"] - self.parts["value"][rows[held_out_N]]
        return -float(np.mean(error_N**2))


LEARNERS: dict[str, type[Learner]] = {
    "subtype": LogisticLearner,
    "response": OrdinalLearner,
    "survival": CoxLearner,
    "regression": RidgeLearner,
}
"""Kind of endpoint to the model for it."""


def _at_least_one(x_ND: np.ndarray) -> np.ndarray:
    """Inputs of which there is one, if only one that says nothing: scikit-learn refuses to fit on none."""
    return x_ND if x_ND.shape[1] else np.zeros((len(x_ND), 1))
