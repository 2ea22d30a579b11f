"""Calibration of predicted classes and numbers: slope and intercept of the truth on what was predicted.

A slope below 1 says that predictions are too extreme, above 1 that they are too cautious. An intercept above 0 says
that the truth lies higher than predicted.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from foundation.metrics.newton import highest
from foundation.metrics.score import Score, share

LEAST_PROBABILITY = 1e-6
"""What is said to be less likely, or to be as near to certain, counts as this: one patient cannot decide alone."""

ROUNDING = 1e-9
"""Of log odds, a difference that is none."""


def logistic_slope(true_NK: np.ndarray, probability_NK: np.ndarray) -> Score:
    """Slope of logistic recalibration: log odds of the truth on predicted log odds; 1 where calibrated.

    Cox 1958, Two further applications of a model for binary regression. Of several classes each is set against the
    rest, with an intercept of its own and one slope for all, by the sum of their log-likelihoods: no class is one of
    reference, and a class that nobody or everybody of a weighting has is left out.

    Args:
        true_NK: [N, K] bool, whether a patient has the class; of two classes, give one.
        probability_NK: [N, K] how likely that was said to be.

    Returns:
        A score that is NaN where predictions separate the classes without error, or are all the same.
    """
    odds_NK = _log_odds(probability_NK)
    classes = odds_NK.shape[1]
    scale = float(np.sqrt(odds_NK.var(axis=0).mean())) if len(odds_NK) else 0.0
    if not scale > ROUNDING:
        return lambda weights_RN: np.full(len(weights_RN), np.nan)
    x_NK = (odds_NK - odds_NK.mean(axis=0)) / scale

    def score(weights_RN: np.ndarray) -> np.ndarray:
        total_RK = weights_RN @ true_NK
        told_RK = (total_RK > 0) & (total_RK < weights_RN.sum(axis=1, keepdims=True))

        def derivatives(at_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            gradient_RP = np.zeros_like(at_RP)
            # The intercept of a class that is left out stays where it is.
            information_RPP = np.tile(np.eye(classes + 1), (len(at_RP), 1, 1))
            information_RPP[:, 0, 0] = 0
            for k in range(classes):
                x_N, told_R = x_NK[:, k], told_RK[:, k]
                expected_RN = expit(at_RP[:, :1] * x_N + at_RP[:, k + 1, None])
                beyond_RN = weights_RN * (true_NK[:, k] - expected_RN) * told_R[:, None]
                spread_RN = weights_RN * expected_RN * (1 - expected_RN) * told_R[:, None]
                gradient_RP[:, 0] += beyond_RN @ x_N
                gradient_RP[:, k + 1] = beyond_RN.sum(axis=1)
                information_RPP[:, 0, 0] += spread_RN @ x_N**2
                information_RPP[:, 0, k + 1] = information_RPP[:, k + 1, 0] = spread_RN @ x_N
                information_RPP[:, k + 1, k + 1] = np.where(told_R, spread_RN.sum(axis=1), 1)
            return gradient_RP, information_RPP

        return highest(derivatives, np.zeros((len(weights_RN), classes + 1)))[:, 0] / scale

    return score


def logistic_intercept(true_N: np.ndarray, probability_N: np.ndarray) -> Score:
    """Intercept of logistic recalibration with the slope held at 1, calibration in the large; 0 where calibrated.

    It is by how much predicted log odds are too low on the whole. With a slope that is free, an intercept would tell of
    patients whose predicted probability is a half, and only of them. Van Calster et al. 2019, Calibration: the Achilles
    heel of predictive analytics.

    Args:
        true_N: [N] bool.
        probability_N: [N] how likely that was said to be.

    Returns:
        A score that is NaN where it is so of nobody or of everybody.
    """
    odds_N = _log_odds(probability_N)

    def score(weights_RN: np.ndarray) -> np.ndarray:
        def derivatives(at_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            expected_RN = expit(odds_N + at_RP)
            beyond_R = np.sum(weights_RN * (true_N - expected_RN), axis=1)
            spread_R = np.sum(weights_RN * expected_RN * (1 - expected_RN), axis=1)
            return beyond_R[:, None], spread_R[:, None, None]

        return highest(derivatives, np.zeros((len(weights_RN), 1)))[:, 0]

    return score


def linear_slope(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Slope of the least-squares line of the truth on the guesses; 1 where calibrated, NaN where guesses are equal."""
    return lambda weights_RN: _line(weights_RN, truth_N, guess_N)[0]


def linear_intercept(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Intercept of that line, in the unit of the truth: its value where 0 is predicted; 0 where calibrated."""
    return lambda weights_RN: _line(weights_RN, truth_N, guess_N)[1]


def _line(weights_RN: np.ndarray, truth_N: np.ndarray, guess_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total_R = weights_RN.sum(axis=1)
    truth_R, guess_R = share(weights_RN @ truth_N, total_R), share(weights_RN @ guess_N, total_R)
    apart_RN = guess_N - guess_R[:, None]
    spread_R = np.sum(weights_RN * apart_RN**2, axis=1)
    least = 1e-12 * float(np.max(np.abs(guess_N), initial=0)) ** 2
    slope_R = share(np.sum(weights_RN * apart_RN * truth_N, axis=1), np.where(spread_R > least * total_R, spread_R, 0))
    return slope_R, truth_R - slope_R * guess_R


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
