"""Grad-CAM (Selvaraju et al. 2017) and Grad-CAM++ (Chattopadhay et al. 2018), for convolutional towers.

The last map of features, weighted by what each feature means to a score. Grad-CAM is left without its last
rectification, so that cells that lower the score have a sign too; Grad-CAM++ knows only those that raise it. Slices of
a volume are maps of their own. What heads read of intensities beside the tower is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from finetune.explain.images.scan import Scan
from foundation.errors import ConfigError
from foundation.model.towers.base import ImageTower

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Features [N, P, D] of P cells, and the gradient of a score at them, to what each feature weighs, [N, 1, D]."""


def grad_cam(scan: Scan) -> Tensor:
    """[S, *grid] float64; above 0 where a cell raises the score, not in its unit."""
    return _weighted(scan, lambda _, slope_NPD: slope_NPD.mean(dim=1, keepdim=True))


def grad_cam_plus_plus(scan: Scan) -> Tensor:
    """[S, *grid] float64, at least 0: where a cell raises the score, not in its unit."""
    return _weighted(scan, _plus_plus).clamp(min=0)


def _plus_plus(a_NPD: Tensor, slope_NPD: Tensor) -> Tensor:
    """Equation 19: gradients that raise the score, more of those that few cells share."""
    below_NPD = 2 * slope_NPD**2 + a_NPD.sum(dim=1, keepdim=True) * slope_NPD**3
    share_NPD = torch.where(below_NPD == 0, 0, slope_NPD**2 / below_NPD)
    return (share_NPD * slope_NPD.clamp(min=0)).sum(dim=1, keepdim=True)


def _weighted(scan: Scan, weigh: Weigh) -> Tensor:
    found = torch.zeros(len(scan.scores), *scan.cells.grid, dtype=torch.float64)
    for key in scan.networks:
        tower: Any = scan.tower(key)
        with _last_map(tower) as maps:
            scores_S = scan.of_network(key, scan.x_CXYZ[None].clone().requires_grad_())[0]
        a_NPD = tower.cells_of(maps[0]).double()
        for s, score in enumerate(scores_S):
            if score.requires_grad:
                [slope] = torch.autograd.grad(score, maps, retain_graph=True, materialize_grads=True)
                slope_NPD = tower.cells_of(slope).double()
                map_NP = (a_NPD * weigh(a_NPD, slope_NPD)).sum(dim=2)
                found[s] += scan.cells.from_tokens(map_NP.detach().cpu().flatten())
    return found


@contextmanager
def _last_map(tower: ImageTower) -> Iterator[list[Tensor]]:
    """The features of a timm model, with their gradient, are kept while this lasts.

    Raises:
        ConfigError: The tower is no convolutional network.
    """
    net: Any = getattr(tower, "net", None)
    features = getattr(net, "forward_features", None)
    kept: list[Tensor] = []

    def recorded(x: Tensor) -> Tensor:
        assert features is not None
        kept.append(features(x))
        return kept[0]

    if features is None or hasattr(net, "num_prefix_tokens"):
        raise ConfigError("the tower is no convolutional network", fix="choose another explainer")
    net.forward_features = recorded
    try:
        yield kept
    finally:
        del net.forward_features
