"""Factors that several omics modalities share, though most patients lack some: for initial weights of towers.

The similarity of two patients is the mean, over the modalities that both have, of the correlation of their profiles;
its leading eigenvectors are the factors. Each feature's weight is what it adds to the best guess of a factor from one
modality alone: the posterior mean of factor analysis with one factor at a time (Bartholomew, Knott and Moustaki 2011,
Latent variable models and factor analysis, chapter 3). So all modalities speak of the same factors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BOUND = 3.0
"""Scaled values are cut here: an outlier must not be a factor of its own."""


def shared_factors(
    values: Mapping[str, np.ndarray], observed: Mapping[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    """Weights of features in factors.

    Args:
        values: Modality to scaled values [N, F]; anything where not observed.
        observed: Modality to bool [N, F].
        count: Number of factors, K; fewer are found where there are fewer patients.

    Returns:
        Modality to weights [F, K]: ``values @ weights`` are a patient's factors as that modality tells them.
    """
    standard, scales = {}, {}
    for name, values_NF in values.items():
        standard[name], scales[name] = _standardise(values_NF, observed[name])
    present = {name: np.asarray(observed_NF.any(axis=1)) for name, observed_NF in observed.items()}
    factors_NK = _leading(_similarity(standard, present), count)
    return {
        name: _weights(x_NF[present[name]], factors_NK[present[name]]) / scales[name][:, None]
        for name, x_NF in standard.items()
    }


def _standardise(values_NF: np.ndarray, observed_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of mean 0 and variance 1 over those observed, zero elsewhere; and the scale that they had."""
    x_NF = np.where(observed_NF, np.clip(values_NF, -BOUND, BOUND), 0.0).astype(np.float64)
    seen_F = np.maximum(observed_NF.sum(axis=0), 1)
    x_NF = np.where(observed_NF, x_NF - x_NF.sum(axis=0) / seen_F, 0.0)
    scale_F = np.sqrt((x_NF**2).sum(axis=0) / seen_F)
    scale_F[scale_F < 1e-6] = np.inf  # A feature that never varies says nothing.
    return x_NF / scale_F, scale_F


def _similarity(standard: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N, N] mean over the modalities that both have; 0 where there is none."""
    total_NN = sum(x_NF @ x_NF.T / x_NF.shape[1] for x_NF in standard.values())
    both_NN = sum(np.outer(here_N, here_N).astype(np.float64) for here_N in present.values())
    return np.asarray(total_NN / np.maximum(both_NN, 1))


def _leading(similarity_NN: np.ndarray, count: int) -> np.ndarray:
    """[N, K] eigenvectors of the largest eigenvalues, of variance 1, the largest entry of each positive."""
    value_N, vector_NN = np.linalg.eigh(similarity_NN)
    count = min(count, int((value_N > 1e-9 * max(value_N[-1], 1e-9)).sum()))
    vectors_NK = vector_NN[:, ::-1][:, :count]
    sign_K = np.sign(vectors_NK[np.abs(vectors_NK).argmax(axis=0), np.arange(count)])
    return vectors_NK * sign_K * np.sqrt(len(similarity_NN))


def _weights(x_NF: np.ndarray, factors_NK: np.ndarray) -> np.ndarray:
    """[F, K] weights of standardised features, by factor analysis with one factor at a time."""
    if not len(x_NF):
        return np.zeros((x_NF.shape[1], factors_NK.shape[1]))
    spread_K = np.maximum(factors_NK.std(axis=0), 1e-9)
    loading_FK = np.clip(x_NF.T @ factors_NK / len(x_NF) / spread_K, -0.95, 0.95)
    precise_FK = loading_FK / (1 - loading_FK**2)
    return precise_FK / (1 + (loading_FK * precise_FK).sum(axis=0))
