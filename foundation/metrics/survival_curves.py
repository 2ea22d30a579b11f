"""Survival curves: Kaplan-Meier, the same for censoring, Breslow's baseline hazard, and the log-rank test."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """A Kaplan-Meier curve: `free` of the event from each of `times` on, within `low` to `high` (95 %)."""

    times: np.ndarray
    free: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def median(self, line: np.ndarray) -> float:
        """Time from which `line` is at most a half; NaN where it never is."""
        reached = np.flatnonzero(line <= 0.5)
        return float(self.times[reached[0]]) if len(reached) else float("nan")

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`free`, `low` and `high` at other times."""
        place = np.searchsorted(self.times, times, side="right") - 1
        return self.free[place], self.low[place], self.high[place]


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> Curve:
    """Estimate the curve of patients with `time` and `event` (1 happened, 0 censored).

    The band is the log-log one with Greenwood's variance; it is NaN where that has no value, while nobody or everybody
    had the event.
    """
    from scipy.stats import CensoredData, ecdf

    happened = event == 1
    estimate = ecdf(CensoredData(uncensored=time[happened], right=time[~happened])).sf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", message="The confidence interval is undefined", category=RuntimeWarning)
        band = estimate.confidence_interval(confidence_level=0.95, method="log-log")
    lines = (estimate.probabilities, band.low.probabilities, band.high.probabilities)
    free, low, high = (
        np.concatenate([[start], line]) for start, line in zip((1.0, np.nan, np.nan), lines, strict=True)
    )
    return Curve(np.concatenate([[0.0], estimate.quantiles]), free, low, high)


class Censoring:
    """How likely a patient is still watched at a time, estimated in each group and in all of them together.

    It is the Kaplan-Meier curve in which a censoring is what happens; of those with the same time, events come first
    and so are no longer at risk of being censored.

    Args:
        time_N: [N] to the event or to censoring, of training patients.
        event_N: [N] 0 censored, anything else happened.
        groups_N: [N] names.
    """

    def __init__(self, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray) -> None:
        self._together = _watched(time_N, event_N)
        self._of_group = {
            group: _watched(time_N[groups_N == group], event_N[groups_N == group]) for group in np.unique(groups_N)
        }

    def watched(self, time_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
        """Probability [N] of being watched beyond each time; a group without training patients takes that of all."""
        watched_N = np.empty(len(time_N))
        for group in np.unique(groups_N):
            times, probability = self._of_group.get(group, self._together)
            here = groups_N == group
            watched_N[here] = probability[np.searchsorted(times, time_N[here], side="right")]
        return watched_N

    def inverse(self, time_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
        """One over `watched`, and 0 where nobody was watched so long."""
        watched_N = self.watched(time_N, groups_N)
        return np.divide(1.0, watched_N, out=np.zeros(len(watched_N)), where=watched_N > 0)


def _watched(time_N: np.ndarray, event_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the probability of being watched before the first and from each of them on."""
    times, place_N = np.unique(time_N, return_inverse=True)
    ended = np.bincount(place_N, minlength=len(times))
    censored = np.bincount(place_N, weights=event_N == 0, minlength=len(times))
    at_risk = np.cumsum(ended[::-1])[::-1] - (ended - censored)
    steps = 1 - np.divide(censored, at_risk, out=np.zeros(len(times)), where=at_risk > 0)
    return times, np.concatenate([[1.0], np.cumprod(steps)])


def breslow(risk_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, times_T: np.ndarray) -> np.ndarray:
    """Cumulated baseline hazard at some times, by Breslow's estimator.

    Args:
        risk_N: [N] logarithm of each patient's hazard, relative to the baseline.
        time_N: [N] to the event or to censoring.
        event_N: [N] 1 happened, 0 censored.
        times_T: [T].

    Returns:
        [T]; the probability of being free of the event is ``exp(-baseline * exp(risk))``.
    """
    times, place_N = np.unique(time_N, return_inverse=True)
    events = np.bincount(place_N, weights=event_N, minlength=len(times))
    at_risk = np.cumsum(np.bincount(place_N, weights=np.exp(risk_N), minlength=len(times))[::-1])[::-1]
    cumulated = np.concatenate([[0.0], np.cumsum(events / at_risk)])
    return cumulated[np.searchsorted(times, times_T, side="right")]


def log_rank(
    time_N: np.ndarray, event_N: np.ndarray, curve_N: np.ndarray, strata_N: np.ndarray | None = None
) -> tuple[float, float]:
    """Log-rank test of two or more curves, stratified: events are compared with those expected within each stratum.

    Args:
        time_N: [N] to the event or to censoring.
        event_N: [N] 1 happened, 0 censored.
        curve_N: [N] which curve each patient belongs to.
        strata_N: [N]; None for one stratum.

    Returns:
        The statistic and its p-value by the chi-square distribution with one degree of freedom fewer than curves; NaN
        twice with one curve or without events.
    """
    from scipy.stats import chi2

    curves = np.unique(curve_N)
    beyond, spread = np.zeros(len(curves)), np.zeros((len(curves), len(curves)))
    strata_N = np.zeros(len(time_N)) if strata_N is None else strata_N
    for stratum in np.unique(strata_N):
        here = strata_N == stratum
        more, of_stratum = _beyond_expected(time_N[here], event_N[here], curve_N[here, None] == curves)
        beyond, spread = beyond + more, spread + of_stratum
    # The last curve follows from the others.
    beyond, spread = beyond[:-1], spread[:-1, :-1]
    if not len(beyond) or not spread.any():
        return float("nan"), float("nan")
    statistic = float(beyond @ np.linalg.pinv(spread) @ beyond)
    return statistic, float(chi2.sf(statistic, len(beyond)))


def _beyond_expected(time_N: np.ndarray, event_N: np.ndarray, in_curve_NA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events beyond those expected in each curve [A], and their hypergeometric covariance [A, A]."""
    times, place_N = np.unique(time_N, return_inverse=True)
    ended_TA, events_TA = (np.zeros((len(times), in_curve_NA.shape[1])) for _ in range(2))
    np.add.at(ended_TA, place_N, in_curve_NA)
    np.add.at(events_TA, place_N, in_curve_NA * event_N[:, None])
    at_risk_TA = np.cumsum(ended_TA[::-1], axis=0)[::-1]
    at_risk_T, events_T = at_risk_TA.sum(axis=1), events_TA.sum(axis=1)
    share_TA = at_risk_TA / at_risk_T[:, None]
    beyond = (events_TA - events_T[:, None] * share_TA).sum(axis=0)
    factor_T = events_T * (at_risk_T - events_T) / np.maximum(at_risk_T - 1, 1)
    spread = np.diag(factor_T @ share_TA) - (share_TA * factor_T[:, None]).T @ share_TA
    return beyond, spread
