"""Embedding of one measured feature (identity, modality, a function of its value), and its initial weights.

A feature f of modality m with value x contributes ``sum over r of basis_r(x) * loading[m, f, r]``, a vector of
width D. The basis is 1 and x for binary values; for others 1, x between -1 and 1, and what x exceeds either bound by.
The loadings are the feature's identity, shared by all modalities, and linear maps of it that each modality
learns. Being linear in the basis, contributions of many features are summed by one matrix product.
R counts the functions of the basis.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from foundation.modality import OmicsModality
from foundation.model.layers.values import masked

BOUND = 1.0
"""Of the middle piece, in scaled units; the outer pieces carry the tails."""
REST = 0.1
"""How much of a random start is left beside one at known factors, so that no two features are quite the same."""
TAIL = 3.0
"""Scaled units per unit of an outer piece, so that an outlier does not outweigh all other features."""


class Vectors(nn.Embedding):
    """An embedding whose vectors start at a length of about one."""

    def reset_parameters(self) -> None:
        """Start at a length of about one."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)


class Slopes(nn.Linear):
    """Linear maps of an identity that start as large as the identity."""

    def reset_parameters(self) -> None:
        """Start."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        nn.init.zeros_(self.bias)


class FeatureEmbedding(nn.Module):
    """Identities of all features, embeddings of modalities, and the value functions.

    Args:
        features: Modality to its features, in the order in which tokens name modalities.
        width: D.
    """

    def __init__(self, features: Mapping[str, OmicsModality], width: int) -> None:
        super().__init__()
        self.width = width
        self.modalities = tuple(features)
        self.pieces = {name: 1 if part.values == "binary" else 3 for name, part in features.items()}
        self.sizes = {name: len(part.features) for name, part in features.items()}
        position = {
            name: i for i, name in enumerate(dict.fromkeys(n for part in features.values() for n in part.features))
        }
        self.identity = Vectors(len(position), width)
        self.modality = Vectors(len(features), width)
        self.slopes = nn.ModuleList(Slopes(width, self.pieces[name] * width) for name in features)
        # Saved with the weights, as whatever loads them may build the module without its tensors.
        genes = [position[name] for part in features.values() for name in part.features]
        self.register_buffer("gene_of_feature", torch.tensor(genes, dtype=torch.int64))
        self.gene_of_feature: Tensor

    def identities(self, modality: str) -> Tensor:
        """[F, D] who each feature of a modality is."""
        first = sum(self.sizes[name] for name in self.modalities[: self.modalities.index(modality)])
        return self.identity(self.gene_of_feature[first : first + self.sizes[modality]])

    def loadings(self, modality: str) -> Tensor:
        """[F, R, D] what each function of the basis is multiplied by; without the modality's embedding."""
        identity_FD = self.identities(modality)
        slopes_FRD = self.slopes[self.modalities.index(modality)](identity_FD).unflatten(-1, (-1, self.width))
        return torch.cat([identity_FD[:, None].to(slopes_FRD.dtype), slopes_FRD], dim=1)

    @torch.no_grad()
    def init_from(self, weights: Mapping[str, Tensor]) -> None:
        """Initialise so that a sum of tokens gives the factors that features have weights in.

        Identities and slopes are the best factorisation of all weights at once, so that the slope of a modality,
        applied to a gene's identity, is the gene's weight in that modality.

        Args:
            weights: Modality to [F, K], K at most D; see `foundation.linear.factors`.
        """
        count = next(iter(weights.values())).shape[1]
        stacked = self.identity.weight.new_zeros(len(self.identity.weight), len(self.modalities), count)
        first = 0
        for position, name in enumerate(self.modalities):
            genes = self.gene_of_feature[first : first + self.sizes[name]]
            # Features weigh as much as they do at a random start, whatever their modality.
            stacked[genes, position] = weights[name] / weights[name].square().sum(1).mean().sqrt().clamp(min=1e-12)
            first += self.sizes[name]
        left_GD, value_D, right_D = torch.linalg.svd(stacked.flatten(1), full_matrices=False)
        rank = min(self.width, len(value_D))
        root_D = value_D[:rank].sqrt()
        identity_GD, slope_DP = left_GD[:, :rank] * root_D, root_D[:, None] * right_D[:rank]
        length = identity_GD.square().sum(1).mean().sqrt().clamp(min=1e-12)
        self.identity.weight.mul_(REST)[:, :rank] += identity_GD / length
        # Factors lie across the width in directions of their own.
        across_KD = torch.empty(count, self.width)
        nn.init.orthogonal_(across_KD)
        for slope_DK, layer, name in zip(slope_DP.split(count, dim=1), self.slopes, self.modalities, strict=True):
            assert isinstance(layer, Slopes)
            into_DD = across_KD.T @ (slope_DK * length).T
            layer.weight.mul_(REST)[:, :rank] += into_DD.repeat(self.pieces[name], 1)

    def basis(self, modality: str, values_BF: Tensor, observed_BF: Tensor) -> Tensor:
        """[B, F, R] functions of the values; all zero where not observed, never all zero where observed."""
        values_BF = masked(values_BF, observed_BF)
        measured_BF = observed_BF.to(values_BF.dtype)
        if self.pieces[modality] == 1:
            return torch.stack([measured_BF, values_BF], dim=-1)
        above = functional.relu(values_BF - BOUND)
        below = -functional.relu(-BOUND - values_BF)
        # Not a clamp, whose gradient is zero at the bounds, where ordinal values may lie.
        middle = values_BF - above - below
        return torch.stack([measured_BF, middle, above / TAIL, below / TAIL], dim=-1)
