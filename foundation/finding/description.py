"""What is found of a region in numbers: intensities under it, how much they differ from the rest, size and place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

SMALLEST = 1e-4
"""Share of the tissue from which on a region has a size; the logarithm of nothing is that of this."""

AXES = "xyz"


def features_of(regions: Sequence[str], channels: Sequence[str], axes: int) -> list[str]:
    """Names of the numbers, in their order."""
    of_channel = ["mean", "spread", *(f"{100 * q:g} % quantile" for q in QUANTILES), "above the rest"]
    of_region = [f"{channel} {what}" for channel in channels for what in of_channel]
    of_region += ["size", *(f"place on {axis}" for axis in AXES[:axes]), *(f"extent on {axis}" for axis in AXES[:axes])]
    return [f"{region}: {what}" for region in regions for what in of_region]


def describe(found_RXYZ: np.ndarray, z_VC: np.ndarray, acquired_C: np.ndarray, tissue_XYZ: np.ndarray) -> np.ndarray:
    """[F] float32 of one image; NaN of channels that were not acquired.

    Args:
        found_RXYZ: From 0 to 1, how surely each voxel is of each region.
        z_VC: Intensities of the V tissue voxels, in units of their spread over the tissue from its median.
        acquired_C: Bool.
        tissue_XYZ: Bool.
    """
    places_VA = np.argwhere(tissue_XYZ)
    low_A = places_VA.min(axis=0)
    places_VA = (places_VA - low_A) / (places_VA.max(axis=0) - low_A + 1)
    orders = [np.argsort(z_VC[:, c]) for c in range(len(acquired_C))]
    numbers: list[float] = []
    for found_XYZ in found_RXYZ:
        weight_V = found_XYZ[tissue_XYZ].astype(np.float64)
        total, rest = weight_V.sum(), (1 - weight_V).sum()
        share_V = weight_V / max(total, 1e-9)
        for c, acquired in enumerate(acquired_C):
            numbers += _of_channel(z_VC[:, c], orders[c], share_V, (1 - weight_V) / max(rest, 1e-9), acquired)
        middle_A = share_V @ places_VA
        numbers += [np.log(total / len(weight_V) + SMALLEST), *middle_A]
        numbers += [*np.sqrt(np.maximum(share_V @ (places_VA - middle_A) ** 2, 0))]
    return np.array(numbers, dtype=np.float32)


def _of_channel(
    z_V: np.ndarray, order_V: np.ndarray, share_V: np.ndarray, rest_V: np.ndarray, acquired: bool
) -> list[float]:
    if not acquired:
        return [np.nan] * (3 + len(QUANTILES))
    mean = float(share_V @ z_V)
    spread = float(np.sqrt(max(share_V @ (z_V - mean) ** 2, 0)))
    up_to_V = np.cumsum(share_V[order_V])
    at = np.minimum(np.searchsorted(up_to_V, QUANTILES), len(z_V) - 1)
    return [mean, spread, *z_V[order_V[at]].tolist(), mean - float(rest_V @ z_V)]
