"""Scores of predicted survival: Harrell's and Uno's C, AUC and Brier score at times, with censoring made up for.

In all but Harrell's C, each patient whose event was seen stands for those who were censored before theirs: the weight
is one over the probability of being watched so long (inverse probability of censoring, IPCW), learned from training
patients.
"""

from __future__ import annotations

import numpy as np

from foundation.metrics.score import Score, mean, share
from foundation.metrics.survival_curves import Censoring


def concordance(
    risk_N: np.ndarray,
    time_N: np.ndarray,
    event_N: np.ndarray,
    groups_N: np.ndarray,
    weight_N: np.ndarray | None = None,
) -> Score:
    """Harrell's C within groups: of the pairs whose order is known, the share in which the higher risk ends first.

    Pairs of different groups are never compared, so that the score of several groups is the mean of theirs, weighted
    by their known pairs. A pair is known when the earlier time is an event; of two equal times, only an event before
    a censoring is. Equal risks count one half.

    Args:
        risk_N: [N], higher is worse.
        time_N: [N], to the event or to censoring.
        event_N: [N], 1 happened, 0 censored.
        groups_N: [N] names.
        weight_N: [N], how much the pairs count in which the patient ends first; None for 1.
    """
    weight_N = np.ones(len(risk_N)) if weight_N is None else weight_N
    blocks = []
    for group in np.unique(groups_N):
        here = np.flatnonzero(groups_N == group)
        died = here[event_N[here] == 1]
        later = time_N[died, None] < time_N[here]
        known_DN = (later | ((time_N[died, None] == time_N[here]) & (event_N[here] == 0))) * weight_N[died, None]
        above = risk_N[died, None] - risk_N[here]
        blocks.append((died, here, known_DN, known_DN * ((above > 0) + 0.5 * (above == 0))))

    def score(weights_RN: np.ndarray) -> np.ndarray:
        won, known = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
        for died, here, known_DN, won_DN in blocks:
            first, second = weights_RN[:, died], weights_RN[:, here]
            won += np.sum((first @ won_DN) * second, axis=1)
            known += np.sum((first @ known_DN) * second, axis=1)
        return share(won, known)

    return score


def uno(
    risk_N: np.ndarray,
    time_N: np.ndarray,
    event_N: np.ndarray,
    groups_N: np.ndarray,
    censoring: Censoring,
    horizon: float = np.inf,
) -> Score:
    """Uno's C within groups: Harrell's, in which each pair weighs as many as censoring has taken away.

    Uno et al. 2011, On the C-statistics for evaluating overall adequacy of risk prediction procedures with censored
    survival data.

    Args:
        risk_N: [N], higher is worse.
        time_N: [N], to the event or to censoring.
        event_N: [N], 1 happened, 0 censored.
        groups_N: [N] names.
        censoring: Of training patients.
        horizon: Only events before it are compared.
    """
    weight_N = censoring.inverse(time_N, groups_N) ** 2 * (time_N < horizon)
    return concordance(risk_N, time_N, event_N, groups_N, weight_N)


def auc_at(
    at: float,
    risk_N: np.ndarray,
    time_N: np.ndarray,
    event_N: np.ndarray,
    groups_N: np.ndarray,
    censoring: Censoring,
) -> Score:
    """Cumulative/dynamic AUC within groups: does who had the event by a time have the higher risk than who is free?

    The share of pairs of one of each in which it is so; equal risks count a half.
    Hung and Chiang 2010, Estimation methods for time-dependent AUC models with survival data.

    Args:
        at: The time.
        risk_N: [N], higher is worse.
        time_N: [N], to the event or to censoring.
        event_N: [N], 1 happened, 0 censored.
        groups_N: [N] names.
        censoring: Of training patients.
    """
    weight_N = censoring.inverse(time_N, groups_N)
    blocks = []
    for group in np.unique(groups_N):
        cases = np.flatnonzero((groups_N == group) & (time_N <= at) & (event_N == 1))
        controls = np.flatnonzero((groups_N == group) & (time_N > at))
        above = risk_N[cases, None] - risk_N[controls]
        won_CN = weight_N[cases, None] * ((above > 0) + 0.5 * (above == 0))
        blocks.append((cases, controls, won_CN))

    def score(weights_RN: np.ndarray) -> np.ndarray:
        won, pairs = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
        for cases, controls, won_CN in blocks:
            of_cases, of_controls = weights_RN[:, cases], weights_RN[:, controls]
            won += np.sum((of_cases @ won_CN) * of_controls, axis=1)
            pairs += (of_cases @ weight_N[cases]) * of_controls.sum(axis=1)
        return share(won, pairs)

    return score


def brier_at(
    at: float, free_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray, censoring: Censoring
) -> Score:
    """Brier score at a time: the mean squared error of the probability of being free of the event; lower is better.

    Graf et al. 1999, Assessment and comparison of prognostic classification schemes for survival data.

    Args:
        at: The time.
        free_N: [N] probability of being free of the event then.
        time_N: [N], to the event or to censoring.
        event_N: [N], 1 happened, 0 censored.
        groups_N: [N] names.
        censoring: Of training patients.
    """
    return mean(_squared_errors(at, free_N, time_N, event_N, groups_N, censoring))


def integrated_brier(
    times_T: np.ndarray,
    free_NT: np.ndarray,
    time_N: np.ndarray,
    event_N: np.ndarray,
    groups_N: np.ndarray,
    censoring: Censoring,
) -> Score:
    """Brier score averaged over the time from the first to the last of `times_T`, by the trapezoidal rule."""
    error_NT = np.stack(
        [
            _squared_errors(at, free_N, time_N, event_N, groups_N, censoring)
            for at, free_N in zip(times_T, free_NT.T, strict=True)
        ],
        axis=1,
    )
    return mean(np.trapezoid(error_NT, times_T, axis=1) / (times_T[-1] - times_T[0]))


def _squared_errors(
    at: float, free_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray, censoring: Censoring
) -> np.ndarray:
    happened = censoring.inverse(time_N, groups_N) * ((time_N <= at) & (event_N == 1))
    free = censoring.inverse(np.full(len(time_N), at), groups_N) * (time_N > at)
    return free_N**2 * happened + (1 - free_N) ** 2 * free
