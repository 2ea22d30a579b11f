"""What a linear model can read of an image: the means of a coarse grid of cells, and how bright the whole of it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, unscaled

GRID = (8, 8, 4)
"""Cells along each axis; of an image of two axes the first two."""

PERCENTILES = (5, 25, 50, 75, 95)

SAMPLED_VOXELS = 2**16
"""Of an image, evenly spaced, for its percentiles: as good as all of them, and quick."""


class ImageFeatures:
    """Features of a cohort's images; each image is read once, when it is first asked for.

    Intensities are 0 to 1 between the image's own bounds, so that no feature depends on who trains.

    Args:
        cohort: The prepared cohort.
    """

    def __init__(self, cohort: PreparedCohort) -> None:
        self.cohort = cohort
        self._aligned: dict[str, Aligned] = {}
        self._known: dict[tuple[str, int], np.ndarray] = {}

    @staticmethod
    def count(shape: Sequence[int]) -> int:
        """F: how many features a channel of such an image has."""
        return int(np.prod(GRID[: len(shape)])) + 2 + len(PERCENTILES)

    def read(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of some records.

        Args:
            name: An image modality of the cohort.
            rows: Of the cohort.

        Returns:
            [N, C, F] float64, C the channels of the cohort, F the cells, the mean, the standard deviation and the
            percentiles of a channel, 0 where the channel is absent; and [N, C] bool, where it is not.

        Raises:
            DataError: The voxels of an image are damaged.
        """
        if name not in self._aligned:
            self._aligned[name] = unscaled(self.cohort, name)
        present_NM, channels = self._aligned[name].presence(rows)
        acquired_NC = channels[name] & present_NM
        features_NCF = np.zeros((*acquired_NC.shape, self.count(self.cohort.image(name).shape)))
        for n, (row, acquired_C) in enumerate(zip(rows.tolist(), acquired_NC, strict=True)):
            if (name, row) not in self._known:
                self._known[name, row] = self._features(name, row, acquired_C)
            features_NCF[n] = self._known[name, row]
        return features_NCF, acquired_NC

    def _features(self, name: str, row: int, acquired_C: np.ndarray) -> np.ndarray:
        """[C, F] of one image."""
        shape = self.cohort.image(name).shape
        grid = GRID[: len(shape)]
        features_CF = np.zeros((len(acquired_C), self.count(shape)))
        if not acquired_C.any():
            return features_CF
        image_CXYZ = torch.zeros(len(acquired_C), *shape)
        self._aligned[name].read_image(name, row, acquired_C, image_CXYZ)
        cells_CG = cell_means(image_CXYZ[None], grid)[0].numpy()
        for c in np.flatnonzero(acquired_C).tolist():
            voxels = image_CXYZ[c].reshape(-1)
            sampled = voxels[:: max(1, len(voxels) // SAMPLED_VOXELS)].numpy()
            whole = [voxels.mean().item(), voxels.std(correction=0).item(), *np.percentile(sampled, PERCENTILES)]
            features_CF[c] = np.concatenate([cells_CG[c], whole])
        return features_CF


def cell_means(x_BCXYZ: Tensor, grid: Sequence[int]) -> Tensor:
    """[B, C, cells] means of cells that divide images of two or three axes evenly; of a short axis some repeat."""
    pool: Any = functional.adaptive_avg_pool3d if len(grid) == 3 else functional.adaptive_avg_pool2d
    return pool(x_BCXYZ, tuple(grid)).flatten(2)
