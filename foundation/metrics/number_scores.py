"""Scores of predicted numbers: explained variance, correlations, absolute error."""

from __future__ import annotations

import numpy as np

from foundation.metrics.score import Score, mean, share


def r_squared(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """The share of the variance that the guesses explain; negative where the mean would be the better guess."""
    error_N = (truth_N - guess_N) ** 2

    def score(weights_RN: np.ndarray) -> np.ndarray:
        total = weights_RN.sum(axis=1)
        mean = share(weights_RN @ truth_N, total)
        spread = share(weights_RN @ truth_N**2, total) - mean**2
        return 1 - share(share(weights_RN @ error_N, total), np.where(spread > 1e-12, spread, 0))

    return score


def pearson(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Pearson's correlation."""
    return lambda weights_RN: _correlation(weights_RN, truth_N[None], guess_N[None])


def spearman(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Spearman's correlation: that of ranks, where equal values share the mean of theirs."""
    return lambda weights_RN: _correlation(weights_RN, _ranks(weights_RN, truth_N), _ranks(weights_RN, guess_N))


def absolute_error(truth_N: np.ndarray, guess_N: np.ndarray) -> Score:
    """Mean absolute error; lower is better."""
    return mean(np.abs(truth_N - guess_N))


def _correlation(weights_RN: np.ndarray, x_RN: np.ndarray, y_RN: np.ndarray) -> np.ndarray:
    total_R1 = weights_RN.sum(axis=1, keepdims=True)
    share_RN = np.divide(weights_RN, total_R1, out=np.zeros_like(weights_RN), where=total_R1 > 0)
    x_RN = x_RN - np.sum(share_RN * x_RN, axis=1, keepdims=True)
    y_RN = y_RN - np.sum(share_RN * y_RN, axis=1, keepdims=True)
    spread = np.sum(share_RN * x_RN**2, axis=1) * np.sum(share_RN * y_RN**2, axis=1)
    return share(np.sum(share_RN * x_RN * y_RN, axis=1), np.sqrt(np.where(spread > 1e-24, spread, 0)))


def _ranks(weights_RN: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    """Rank [R, N] of each patient where each stands as often as it weighs, up to a constant."""
    _, level_N = np.unique(value_N, return_inverse=True)
    order = np.argsort(level_N, kind="stable")
    first = np.flatnonzero(np.diff(level_N[order], prepend=-1))
    at_level_RL = np.add.reduceat(weights_RN[:, order], first, axis=1)
    return (np.cumsum(at_level_RL, axis=1) - at_level_RL / 2)[:, level_N]
