"""The linear map from a tower's pooled vector into the shared space, and its initial weights from data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1.0
"""Added to the variance of each direction, in units of their mean: what lies below the mean is rather noise, and stays
small."""


class Projection(nn.Linear):
    """A linear map that can start from what it is about to be given."""

    @torch.no_grad()
    def init_from(self, x_ND: Tensor) -> None:
        """Start centred and whitened: mean 0, and about the same variance in each direction of more than the average.

        A tower that starts at random gives almost the same vector for everybody. Cosines are then all near 1, and a
        contrastive loss first has to take that constant away. Data-dependent starts: Krähenbühl et al. 2016; Mishkin
        and Matas 2016.

        Args:
            x_ND: Pooled vectors of training records, at least two.
        """
        x_ND = x_ND.double()
        mean_D = x_ND.mean(dim=0)
        variance_D, axes_DD = torch.linalg.eigh(torch.cov(x_ND.T))
        count = min(self.out_features, self.in_features)
        scale_K = (variance_D + FLOOR * variance_D.mean()).rsqrt().flip(0)[:count]
        # A rotation, since the first axis of one tower has nothing to do with the first of another.
        turn_OK = torch.empty(self.out_features, count, dtype=torch.float64)
        nn.init.orthogonal_(turn_OK)
        weight_OD = (turn_OK.to(x_ND.device) * scale_K) @ axes_DD.flip(1)[:, :count].T
        self.weight.copy_(weight_OD)
        self.bias.copy_(-weight_OD @ mean_D)
