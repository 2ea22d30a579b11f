"""A linear Cox model with a ridge penalty: a baseline hazard of its own for each group, one vector of weights."""

from __future__ import annotations

import numpy as np


def fit_cox(
    x_ND: np.ndarray,
    time_N: np.ndarray,
    event_N: np.ndarray,
    groups_N: np.ndarray,
    penalty: float,
    start_D: np.ndarray | None = None,
) -> np.ndarray:
    """Weights that minimise the negative partial log-likelihood per event plus ``penalty / 2`` times their squares.

    Args:
        x_ND: [N, D] features, of similar scale.
        time_N: [N] to the event or to censoring.
        event_N: [N] 1 happened, 0 censored; at least one happened.
        groups_N: [N] names; the patients at risk are those of the same group (Breslow's rule for equal times).
        penalty: Above 0.
        start_D: Where the search begins: nearby weights save steps; zero by default.

    Returns:
        [D] weights; a higher ``x @ weights`` means an earlier event.
    """
    from scipy.optimize import minimize

    strata = [(x_ND[rows], last_E, happened_S) for rows, last_E, happened_S in _risk_sets(time_N, event_N, groups_N)]
    events = float(event_N.sum())

    def loss(weights_D: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope_D = 0.0, np.zeros_like(weights_D)
        for x_SD, last_E, happened_S in strata:
            part, part_D = _partial(x_SD, last_E, happened_S, weights_D)
            value, slope_D = value + part, slope_D + part_D
        ridge = 0.5 * penalty * float(weights_D @ weights_D)
        return value / events + ridge, slope_D / events + penalty * weights_D

    start_D = np.zeros(x_ND.shape[1]) if start_D is None else start_D
    return minimize(loss, start_D, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12}).x


def partial_likelihood(risk_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray) -> float:
    """Logarithm of the partial likelihood of log hazards `risk_N`, summed over groups; arguments as in `fit_cox`."""
    one = np.ones(1)
    return -sum(
        _partial(risk_N[rows, None], last_E, happened_S, one)[0]
        for rows, last_E, happened_S in _risk_sets(time_N, event_N, groups_N)
    )


def _risk_sets(
    time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each group with an event: its rows, latest first, the last row at risk at each event, and who had it."""
    sets = []
    for group in np.unique(groups_N):
        rows = np.flatnonzero(groups_N == group)
        rows = rows[np.argsort(-time_N[rows], kind="stable")]
        # Latest first: those at risk at a time are all rows up to the last one that has it.
        last = np.searchsorted(-time_N[rows], -time_N[rows], side="right") - 1
        happened = event_N[rows] == 1
        if happened.any():
            sets.append((rows, last[happened], happened))
    return sets


def _partial(
    x_SD: np.ndarray, last_E: np.ndarray, happened_S: np.ndarray, weights_D: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative partial log-likelihood of a group's rows, latest first, and its gradient."""
    score_S = x_SD @ weights_D
    top = score_S.max()
    hazard_S = np.exp(score_S - top)
    at_risk_E = np.cumsum(hazard_S)[last_E]
    value = float(np.sum(np.log(at_risk_E) + top) - score_S[happened_S].sum())
    # A row counts in the risk set of every event whose last row is not before it.
    inverse_S = np.zeros(len(score_S))
    np.add.at(inverse_S, last_E, 1 / at_risk_E)
    pull_S = hazard_S * np.cumsum(inverse_S[::-1])[::-1] - happened_S
    return value, x_SD.T @ pull_S
