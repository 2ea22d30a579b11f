"""Calibration of predicted survival: tests of D- and 1-calibration, slope of the hazard, events observed and expected.

A p-value is of all patients as they are: under resampling a test would count the same patient twice as two.
"""

from __future__ import annotations

import numpy as np

from foundation.metrics.newton import highest
from foundation.metrics.score import Score, share

BINS = 10
"""Of equal width in the predicted probability, of D-calibration."""

MOST_GROUPS = 10
"""Of alike predicted probability, of 1-calibration."""

FEWEST_EXPECTED = 5
"""Events, and patients free of it, that are expected in each group of 1-calibration, for its test to hold."""

ROUNDING = 1e-12
"""Of a variance of inputs of the order of 1, what is none."""


def d_calibration(free_N: np.ndarray, event_N: np.ndarray) -> float:
    """Test whether patients' predicted survival probabilities at the times of their own events are spread evenly.

    Of a calibrated model, a tenth of the patients have the event in each tenth of the probability. A censored patient
    is spread over the tenths below the probability at censoring, since the event would have come in one of them.
    Haider et al. 2020, Effective ways to build and evaluate individual survival distributions, JMLR 21(85). The more
    are censored, the more seldom the test rejects.

    Args:
        free_N: [N] survival probability predicted for a patient at the patient's own time of event or censoring.
        event_N: [N] 1 happened, 0 censored.

    Returns:
        p-value of the chi-square test; small where not calibrated. NaN for no patients.
    """
    from scipy.stats import chisquare

    if not len(free_N):
        return float("nan")
    return float(chisquare(patients_by_bin(free_N, event_N)).pvalue)


def patients_by_bin(free_N: np.ndarray, event_N: np.ndarray) -> np.ndarray:
    """Patients [BINS] in each bin of the predicted survival probability, from 0 to 1; the censored in fractions."""
    edges_B = np.arange(BINS) / BINS
    own_N = np.minimum((free_N * BINS).astype(np.int64), BINS - 1)
    happened_NB = (own_N[:, None] == np.arange(BINS)).astype(np.float64)
    # A censored patient has the event anywhere below: in a bin as often as it covers what lies below.
    covered_NB = np.clip(free_N[:, None] - edges_B, 0, 1 / BINS)
    below_NB = np.divide(covered_NB, free_N[:, None], out=happened_NB.copy(), where=free_N[:, None] > 0)
    return np.where(event_N[:, None] == 1, happened_NB, below_NB).sum(axis=0)


def one_calibration(at: float, free_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray) -> float:
    """Test whether as many are free of the event at a time as predicted, in groups of alike predicted probability.

    The test of Hosmer and Lemeshow with Kaplan-Meier's estimate as what is observed: D'Agostino and Nam 2004,
    Evaluation of the performance of survival analysis models. Two things differ, without which it would reject
    calibrated models too often. The variance is the predicted binomial one times the ratio of Greenwood's to the
    observed binomial one: that ratio is what censoring has taken away (of Greenwood's own: Demler et al. 2015, Tests of
    calibration and goodness-of-fit in the survival setting). And there are as many degrees of freedom as groups, since
    the predictions were not fitted to these patients. Of up to MOST_GROUPS groups there are as many as leave
    FEWEST_EXPECTED events and as many patients free of it expected in each.

    Args:
        at: The time.
        free_N: [N] survival probability predicted for then.
        time_N: [N] to the event or to censoring.
        event_N: [N] 1 happened, 0 censored.

    Returns:
        p-value by the chi-square distribution; small where not calibrated. NaN where too few events are expected for
        one group, or nobody was followed so long.
    """
    from scipy.stats import chi2

    order = np.argsort(free_N, kind="stable")
    for count in range(MOST_GROUPS, 0, -1):
        groups = np.array_split(order, count)
        if all(_enough(free_N[rows]) and (time_N[rows] >= at).any() for rows in groups):
            break
    else:
        return float("nan")
    statistic = 0.0
    for rows in groups:
        observed, ratio = _observed(at, time_N[rows], event_N[rows])
        expected = float(free_N[rows].mean())
        statistic += len(rows) * (observed - expected) ** 2 / (expected * (1 - expected) * ratio)
    return float(chi2.sf(statistic, len(groups)))


def _enough(free_N: np.ndarray) -> bool:
    return min(free_N.sum(), len(free_N) - free_N.sum()) >= FEWEST_EXPECTED


def _observed(at: float, time_N: np.ndarray, event_N: np.ndarray) -> tuple[float, float]:
    """Kaplan-Meier's estimate at a time, and Greenwood's variance of it by that of a share of as many patients."""
    times = np.unique(time_N[(event_N == 1) & (time_N <= at)])
    at_risk_T = np.sum(time_N >= times[:, None], axis=1)
    events_T = np.sum((time_N == times[:, None]) & (event_N == 1), axis=1)
    free = float(np.prod(1 - events_T / at_risk_T))
    if not 0 < free < 1:
        return free, 1.0
    relative = float(np.sum(events_T / (at_risk_T * (at_risk_T - events_T))))
    return free, len(time_N) * free * relative / (1 - free)


def hazard_slope(log_hazard_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, strata_N: np.ndarray) -> Score:
    """Slope of Cox regression on predicted log hazards, within strata; 1 where calibrated.

    Below 1, predicted hazards differ more between patients than theirs do. Van Houwelingen 2000, Validation,
    calibration, revision and combination of prognostic survival models. Patients with the same time are at risk for
    each other's events (Breslow), so that a weight is that many patients.

    Args:
        log_hazard_N: [N], up to a constant in each stratum: the linear predictor of Cox's model, or log(-log S) of a
            survival probability S at a time.
        time_N: [N] to the event or to censoring.
        event_N: [N] 1 happened, 0 censored.
        strata_N: [N] names; patients are compared with those of the same stratum only.

    Returns:
        A score that is NaN where there is no event with others at risk, where log hazards are equal, and where their
        order is without error.
    """
    _, stratum_N = np.unique(strata_N, return_inverse=True)
    count_G = np.bincount(stratum_N)
    mean_G = np.bincount(stratum_N, weights=log_hazard_N) / np.maximum(count_G, 1)
    apart_N = log_hazard_N - mean_G[stratum_N]
    scale = float(apart_N.std()) if len(apart_N) else 0.0
    # Differences by rounding are none.
    if not scale > 1e-9 * (1 + float(np.max(np.abs(log_hazard_N), initial=0))):
        return lambda weights_RN: np.full(len(weights_RN), np.nan)
    order = np.lexsort((-time_N, stratum_N))
    x_N, stratum_N, time_N = apart_N[order] / scale, stratum_N[order], time_N[order]
    died = np.flatnonzero(event_N[order] == 1)
    # In this order those at risk lie between the first of the stratum and the last with the same time.
    ends = np.flatnonzero((np.diff(stratum_N, append=-1) != 0) | (np.diff(time_N, append=np.nan) != 0))
    last_D = ends[np.searchsorted(ends, died)]
    strata = [slice(stop - count, stop) for count, stop in zip(count_G, np.cumsum(count_G), strict=True)]

    def at_risk(values_RN: np.ndarray) -> np.ndarray:
        # Each stratum is summed by itself: of a sum over several, rounding could leave less than a small one holds.
        sums_RN = np.concatenate([np.cumsum(values_RN[:, stratum], axis=1) for stratum in strata], axis=1)
        return sums_RN[:, last_D]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        weights_RN = weights_RN[:, order]
        died_RD = weights_RN[:, died]

        def derivatives(at_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            hazard_RN = weights_RN * np.exp(at_RP * x_N)
            total_RD = np.where(died_RD > 0, at_risk(hazard_RN), 1)
            mean_RD = at_risk(hazard_RN * x_N) / total_RD
            spread_RD = at_risk(hazard_RN * x_N**2) / total_RD - mean_RD**2
            spread_RD = np.where(spread_RD > ROUNDING, spread_RD, 0)
            gradient_R = np.sum(died_RD * (x_N[died] - mean_RD), axis=1)
            return gradient_R[:, None], np.sum(died_RD * spread_RD, axis=1)[:, None, None]

        return highest(derivatives, np.zeros((len(weights_RN), 1)))[:, 0] / scale

    return score


def observed_by_expected(
    at: float, free_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray, groups_N: np.ndarray
) -> Score:
    """Events observed by a time over those expected; 1 where calibrated, above it where risks are predicted too low.

    Args:
        at: The time.
        free_N: [N] survival probability predicted for then.
        time_N: [N] to the event or to censoring.
        event_N: [N] 1 happened, 0 censored.
        groups_N: [N] names; each group has a Kaplan-Meier curve of its own.
    """

    def score(weights_RN: np.ndarray) -> np.ndarray:
        observed_R, expected_R = events_by(at, free_N, time_N, event_N, groups_N, weights_RN)
        return share(observed_R, expected_R)

    return score


def events_by(
    at: float,
    free_N: np.ndarray,
    time_N: np.ndarray,
    event_N: np.ndarray,
    groups_N: np.ndarray,
    weights_RN: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Events [R] that happened by a time, by Kaplan-Meier in each group, and events [R] expected by the predictions.

    A group of whom nobody in a weighting was followed so long, though some were free of the event, is left out of both.
    """
    observed_R, expected_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    for group in np.unique(groups_N):
        here = groups_N == group
        weights, total_R = weights_RN[:, here], weights_RN[:, here].sum(axis=1)
        free_R = _kaplan_meier_at(at, time_N[here], event_N[here], weights)
        followed_R = (weights @ (time_N[here] >= at) > 0) | (free_R == 0)
        observed_R += np.where(followed_R, total_R * (1 - free_R), 0)
        expected_R += np.where(followed_R, weights @ (1 - free_N[here]), 0)
    return observed_R, expected_R


def _kaplan_meier_at(at: float, time_N: np.ndarray, event_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Share [R] free of the event at a time, in each weighting."""
    order = np.argsort(-time_N, kind="stable")
    at_risk_RN = np.cumsum(weights_RN[:, order], axis=1)
    events_RN = weights_RN[:, order] * ((event_N == 1) & (time_N <= at))[order]
    # The last of those with one time sees all of them at risk.
    ends = np.flatnonzero(np.diff(time_N[order], append=np.nan) != 0)
    ended_RT = np.diff(np.cumsum(events_RN, axis=1)[:, ends], axis=1, prepend=0)
    at_risk_RT = at_risk_RN[:, ends]
    hazard_RT = np.divide(ended_RT, at_risk_RT, out=np.zeros_like(ended_RT), where=at_risk_RT > 0)
    return np.prod(1 - hazard_RT, axis=1)
