"""Newton's method for many weightings of the same patients at once: where each of R concave functions is highest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOST_STEPS = 50
SETTLED = 1e-8

LONGEST_STEP = 2.0
"""In any parameter. A longer one is shortened in its own direction: in another, a search can go to and fro for ever."""

SINGULAR = 1e-9
"""Of the information, scaled to a diagonal of ones, the eigenvalue below which a direction is not told by the data."""

Derivatives = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Parameters [R, P] to the gradient [R, P] and to the information [R, P, P], the negative second derivatives."""


def highest(derivatives: Derivatives, start_RP: np.ndarray) -> np.ndarray:
    """Find the parameters [R, P] at which each function is highest.

    Args:
        derivatives: Of the functions.
        start_RP: [R, P] where to begin; inputs should be scaled so that parameters are of the order of 1.

    Returns:
        [R, P]; NaN where a function has no highest point, as the likelihood of classes that an input separates without
        error, or where the data do not tell one.
    """
    at_RP, length_R = start_RP, np.full(len(start_RP), np.inf)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for _ in range(MOST_STEPS):
            step_RP = _step(*derivatives(at_RP))
            length_R = np.abs(step_RP).max(axis=1, initial=0)
            at_RP = at_RP + step_RP / np.maximum(1, length_R / LONGEST_STEP)[:, None]
            if not (length_R > SETTLED).any():
                break
    return np.where((length_R <= SETTLED)[:, None], at_RP, np.nan)


def _step(gradient_RP: np.ndarray, information_RPP: np.ndarray) -> np.ndarray:
    """Information into gradient; NaN where the information is singular."""
    scale_RP = np.sqrt(np.einsum("rpp->rp", information_RPP))
    told_R = np.isfinite(gradient_RP).all(axis=1) & (scale_RP > 0).all(axis=1)
    scale_RP = np.where(told_R[:, None], scale_RP, 1)
    scaled_RPP = information_RPP / (scale_RP[:, :, None] * scale_RP[:, None, :])
    told_R &= np.isfinite(scaled_RPP).all(axis=(1, 2))
    scaled_RPP = np.where(told_R[:, None, None], scaled_RPP, np.eye(gradient_RP.shape[1]))
    told_R &= np.linalg.eigvalsh(scaled_RPP)[:, 0] > SINGULAR
    scaled_RPP[~told_R] = np.eye(gradient_RP.shape[1])
    step_RP = np.linalg.solve(scaled_RPP, (gradient_RP / scale_RP)[:, :, None])[:, :, 0] / scale_RP
    return np.where(told_R[:, None], step_RP, np.nan)
