"""Ordered classes by proportional odds with a ridge penalty: one direction, and cuts along it."""

from __future__ import annotations

import numpy as np


def fit_proportional_odds(x_ND: np.ndarray, code_N: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the mean negative log-likelihood plus ``penalty / 2`` times the squared weights.

    P(code ≤ k) is the logistic function of ``cuts[k] - x @ weights`` (McCullagh, JRSS B 1980).

    Args:
        x_ND: [N, D] features, of similar scale.
        code_N: [N] 0 to K - 1; each of them occurs.
        penalty: Above 0.

    Returns:
        [D] weights, a higher ``x @ weights`` means a higher class, and [K - 1] cuts, ascending.
    """
    from scipy.optimize import minimize

    below = np.cumsum(np.bincount(code_N))[:-1] / len(code_N)
    start_cuts = np.log(below / (1 - below))
    width, classes = x_ND.shape[1], len(below) + 1
    member_NK = code_N[:, None] == np.arange(classes)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights_D, cuts = parameters[:width], _cuts(parameters[width:])
        under_NC = _logistic(cuts - (x_ND @ weights_D)[:, None])
        slope_NC = under_NC * (1 - under_NC)
        probability_N = np.maximum(_differences(under_NC)[member_NK], 1e-300)
        # How the log-likelihood of each row changes with each cut; with the score it changes the other way.
        pull_NC = (member_NK[:, :-1].astype(np.float64) - member_NK[:, 1:]) * slope_NC / probability_N[:, None]
        slope_D = x_ND.T @ pull_NC.sum(axis=1) / len(x_ND) + penalty * weights_D
        value = 0.5 * penalty * float(weights_D @ weights_D) - float(np.mean(np.log(probability_N)))
        return value, np.concatenate([slope_D, _pull_of_steps(-pull_NC.mean(axis=0), parameters[width:])])

    start = np.concatenate([np.zeros(width), start_cuts[:1], np.log(np.diff(start_cuts))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12}).x
    return found[:width], _cuts(found[width:])


def class_probabilities(score_N: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """[N, K] probability of each class, from scores ``x @ weights`` and the K - 1 cuts."""
    return _differences(_logistic(cuts - score_N[:, None]))


def _differences(under_NC: np.ndarray) -> np.ndarray:
    """Chance of each class from that of all classes up to it."""
    return np.diff(under_NC, axis=1, prepend=0.0, append=1.0)


def _cuts(steps: np.ndarray) -> np.ndarray:
    """Ascending cuts from the first and the logarithms of the steps between them."""
    return np.cumsum(np.concatenate([steps[:1], np.exp(steps[1:])]))


def _pull_of_steps(pull: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Gradient by the steps from the gradient by the cuts."""
    later = np.cumsum(pull[::-1])[::-1]
    return later * np.concatenate([np.ones(min(1, len(steps))), np.exp(steps[1:])])


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
