"""Integrated gradients at voxels (Sundararajan et al. 2017), from the plain scan to the scan, summed within cells.

Cells add up to the score less that of the plain scan, towers and what heads read of intensities together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from finetune.explain.images.scan import MOST_VOXELS, Scan

STEPS = 12


def integrated_gradients(scan: Scan, steps: int = STEPS) -> Tensor:
    """[S, *grid] float64, in units of scores; above 0 where a cell raises the score."""
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
