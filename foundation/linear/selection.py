"""The rule that chooses a penalty: held-out patients of inner folds have to be most likely under it.

Likelihood, not a rank statistic or the share of right answers: of a few dozen held-out patients those are noise, and
they do not ask how sure a model should be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.linear.fitted import Fitted
from foundation.linear.learners import Learner


def fit_chosen(learner: Learner, x_ND: np.ndarray, rows: np.ndarray, held_out: Sequence[np.ndarray]) -> Fitted:
    """Fit on all rows, under the penalty that `choose_penalty` finds with the same arguments."""
    return learner.fit(x_ND, rows, choose_penalty(learner, x_ND, rows, held_out))


def choose_penalty(learner: Learner, x_ND: np.ndarray, rows: np.ndarray, held_out: Sequence[np.ndarray]) -> float:
    """The penalty with the highest ``cv_log_likelihood``, averaged over inner folds; of equals the most cautious.

    Args:
        learner: Whose penalties are tried.
        x_ND: [N, D] inputs of the rows, of similar scale.
        rows: [N] of the patients whom `learner` knows; those to train on.
        held_out: Of each inner fold [N] bool, who is held out of its fits. A fold that holds out nobody or everybody is
            passed over; where no fold is left, the most cautious penalty is taken.
    """
    of_folds = []
    for held_out_N in held_out:
        if held_out_N.any() and not held_out_N.all():
            path = learner.path(x_ND[~held_out_N], rows[~held_out_N], learner.penalties)
            of_folds.append([learner.cv_log_likelihood(fitted, x_ND, rows, held_out_N) for fitted in path])
    # The most cautious comes first, and argmax takes the first of equals.
    best = int(np.argmax(np.mean(of_folds, axis=0))) if of_folds else 0
    return learner.penalties[best]


def stratified_folds(strata_N: np.ndarray, count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Masks [N] of who is held out of each of `count` folds: everybody once, each stratum spread evenly."""
    order = np.concatenate([random.permutation(np.flatnonzero(strata_N == each)) for each in np.unique(strata_N)])
    fold_N = np.empty(len(strata_N), dtype=np.int64)
    fold_N[order] = np.arange(len(order)) % count
    return [fold_N == fold for fold in range(count)]
