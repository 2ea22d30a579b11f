"""Integrated gradients at voxels (Sundararajan et al. 2017), from the plain scan to the scan, summed within cells.

Cells add up to the score less that of the plain scan, towers and what heads read of intensities together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from finetune.explain.images.scan import MOST_VOXELS, Scan

STEPS = (12, 24, 48, 96)
"""More are taken until cells add up, or there are no more."""

TOLERANCE = 0.01
"""How far cells may be from adding up, as a share of what the scan moves the score that it moves most."""


def integrated_gradients(scan: Scan, steps: Sequence[int] = STEPS) -> Tensor:
    """[S, *grid] float64, in units of scores; above 0 where a cell raises the score."""
    moved_S = scan.moved()
    map_SG = _taken(scan, steps[0])
    for more in steps[1:]:
        if (map_SG.flatten(1).sum(dim=1) - moved_S).abs().max() <= TOLERANCE * moved_S.abs().max():
            break
        map_SG = _taken(scan, more)
    return map_SG


def _taken(scan: Scan, steps: int) -> Tensor:
    """[S, *grid] by Gauss and Legendre's rule."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    away = scan.x_CXYZ - scan.plain_CXYZ
    axes = [1] * away.ndim
    slope: Tensor | None = None
    size = max(1, MOST_VOXELS // away.numel())
    for at in torch.arange(steps).split(size):
        share_K, weight_K = (torch.from_numpy(v).float()[at].view(-1, *axes) for v in ((points + 1) / 2, weights / 2))
        x_KCXYZ = (scan.plain_CXYZ + share_K * away).requires_grad_()
        scores_S = scan.read(x_KCXYZ).sum(dim=0)
        # A copy's scores depend on its own voxels alone, so one sum gives the gradients of all.
        found = [
            torch.autograd.grad(score, x_KCXYZ, retain_graph=True, materialize_grads=True)[0]
            if score.requires_grad
            else torch.zeros_like(x_KCXYZ)
            for score in scores_S
        ]
        mean = torch.stack([(weight_K * of_score).sum(dim=0) for of_score in found])
        slope = mean if slope is None else slope + mean
    assert slope is not None
    return scan.cells.sums((slope * away).sum(dim=1).double())
