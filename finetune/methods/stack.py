"""Which method predicts best, alone or stacked with others: weights that patients choose who taught none of them.

A stack is the sum of the methods' outputs (log hazards, log odds, standardised numbers), each times a weight that is
not negative (Breiman 1996, Stacked regressions). The weights make held-out patients of inner folds most likely, under a
penalty that draws them towards the plain mean. Of methods alone the best is taken; a stack asks for several methods
where one would do, so it has to gain more on inner folds than one standard error of the gain (the rule of Breiman et
al. 1984, Classification and regression trees).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.tasks.base import Labels, Task

STACK = "stack"

PENALTIES = (1.0, 0.1, 0.01)
"""Of half the squared distance of the weights from the plain mean, beside the mean loss; the most cautious first."""

LEAST = 1e-4
"""Of a weight, below which a method is left out. Without any weight, ordered classes would all be at one threshold."""


@dataclass(frozen=True)
class InnerFold:
    """The held-out patients of an inner fold.

    Attributes:
        outputs: Method to its outputs [n, ...] for a task.
        labels: Endpoint to its parts [n].
        groups: [n] names.
    """

    outputs: dict[str, Tensor]
    labels: Labels
    groups: list[str]


@dataclass(frozen=True)
class Stacked:
    """What is kept for a task.

    Attributes:
        weights: Method to its weight; those of none are left out.
        cv_log_likelihood: Each method alone and `STACK`, to the log-likelihood of patients of inner folds whose weights
            were learned on the others.
    """

    weights: dict[str, float]
    cv_log_likelihood: dict[str, float]

    def outputs(self, of_methods: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of outputs [N, ...]."""
        return torch.stack([weight * of_methods[name].double() for name, weight in self.weights.items()]).sum(dim=0)


def choose(task: Task, inner: Sequence[InnerFold]) -> Stacked:
    """Choose among methods and their stack.

    Args:
        task: Fitted on the training patients.
        inner: At least two folds; all have outputs of the same methods, the most cautious method first.
    """
    methods = _distinct(inner)
    candidates: dict[str, list[str]] = {name: [name] for name in methods}
    if len(methods) > 1:
        candidates[STACK] = methods
    of_each = {name: _best_penalty(task, inner, members) for name, members in candidates.items()}
    # Of equals the first is taken.
    best = max(methods, key=lambda name: of_each[name][1].mean())
    if STACK in of_each and _more_than_its_error(of_each[STACK][1] - of_each[best][1]):
        best = STACK
    weights = fit_weights(task, inner, candidates[best], of_each[best][0])
    told = {name: weight for name, weight in weights.items() if weight > LEAST} or weights
    return Stacked(told, {name: float(values_K.mean()) for name, (_, values_K) in of_each.items()})


def _more_than_its_error(gain_K: np.ndarray) -> bool:
    """Whether the mean of inner folds is above its standard error."""
    return bool(gain_K.mean() > gain_K.std(ddof=1) / np.sqrt(len(gain_K)))


def _best_penalty(task: Task, inner: Sequence[InnerFold], methods: Sequence[str]) -> tuple[float, np.ndarray]:
    """The penalty of weights under which inner folds are most likely, and [K] how likely each is."""
    of_penalty = {penalty: _cv_log_likelihood(task, inner, methods, penalty) for penalty in PENALTIES}
    best = max(of_penalty, key=lambda penalty: of_penalty[penalty].mean())
    return best, of_penalty[best]


def _distinct(inner: Sequence[InnerFold]) -> list[str]:
    """Methods of which none says the same as one before it, as an adapted model does that was not trained."""
    found: list[str] = []
    for name in inner[0].outputs:
        if not any(all(fold.outputs[name].equal(fold.outputs[other]) for fold in inner) for other in found):
            found.append(name)
    return found


def fit_weights(task: Task, inner: Sequence[InnerFold], methods: Sequence[str], penalty: float) -> dict[str, float]:
    """Weights, `LEAST` or more, that minimise the mean loss of held-out patients and the penalty."""
    from scipy.optimize import minimize

    equal = np.full(len(methods), 1 / len(methods))
    folds = [(_outputs(fold, methods), task.loss_of(fold.labels, fold.groups)) for fold in inner]

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        weights_M = torch.from_numpy(weights).requires_grad_()
        value = torch.stack([loss(outputs @ weights_M) for outputs, loss in folds]).mean()
        value = value + penalty * (weights_M - torch.from_numpy(equal)).square().sum() / 2
        (slope_M,) = torch.autograd.grad(value, weights_M)
        return value.item(), slope_M.numpy()

    bounds = [(LEAST, None)] * len(methods)
    found = minimize(objective, equal, jac=True, method="L-BFGS-B", bounds=bounds).x
    return dict(zip(methods, found.tolist(), strict=True))


def _cv_log_likelihood(task: Task, inner: Sequence[InnerFold], methods: Sequence[str], penalty: float) -> np.ndarray:
    """[K] of inner folds, each under the weights that the others give."""
    values = []
    for k, fold in enumerate(inner):
        weights = fit_weights(task, [other for j, other in enumerate(inner) if j != k], methods, penalty)
        stacked = _outputs(fold, methods) @ torch.tensor([*weights.values()], dtype=torch.float64)
        values.append(-float(task.loss_of(fold.labels, fold.groups)(stacked)))
    return np.array(values)


def _outputs(fold: InnerFold, methods: Sequence[str]) -> Tensor:
    """[n, ..., M] of some methods."""
    return torch.stack([fold.outputs[name] for name in methods], dim=-1)
