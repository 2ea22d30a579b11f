"""Occlusion (Zeiler and Fergus 2014): how far a score falls when one cell of a scan is taken away.

It asks the network itself, and needs no gradient and nothing of how a tower is built; but one pass for each cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.explain.images.scan import Scan


def occlusion(scan: Scan) -> Tensor:
    """[S, *grid] float64, in units of scores; above 0 where a cell raises the score."""
    [cells] = torch.nonzero(scan.tissue_G.flatten(), as_tuple=True)
    keep_KT = torch.ones(len(cells) + 1, len(scan.cells), dtype=torch.bool)
    keep_KT[torch.arange(len(cells)), cells] = False
    scores_KS = scan.taken(keep_KT.unflatten(1, scan.cells.grid))
    map_ST = torch.zeros(scores_KS.shape[1], len(scan.cells), dtype=torch.float64)
    map_ST[:, cells] = (scores_KS[-1] - scores_KS[:-1]).T
    return map_ST.unflatten(1, scan.cells.grid)
