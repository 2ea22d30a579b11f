"""Tokens that each stand for a group of features of one modality: their contributions, averaged over the observed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foundation.config import Config
from foundation.modality import OmicsModality
from foundation.model.tokenizers.base import Tokenized, Tokenizer

Groups = Sequence[Sequence[int]]
"""For each group the positions of its features on the axis F of one modality; a feature may be in several."""


class GroupSum(nn.Module):
    """Weighted sums over groups of features.

    Groups of similar size are padded to the largest of them and done in one batched matrix product, so that cost
    and memory follow the number of memberships, not groups x features. P counts the groups, L the members.

    Args:
        groups: The members of each; none is empty.
        features: F.
        weighted: Whether each membership has a learned weight.
    """

    def __init__(self, groups: Groups, features: int, weighted: bool) -> None:
        super().__init__()
        buckets: dict[int, list[int]] = {}
        for group, members in enumerate(groups):
            buckets.setdefault((len(members) - 1).bit_length(), []).append(group)
        self.weights = nn.ParameterList()
        self.buckets = len(buckets)
        for bucket, (_, chosen) in enumerate(sorted(buckets.items())):
            longest = max(len(groups[group]) for group in chosen)
            # `features` is one past the last: a place whose basis is zero.
            padded = [[*groups[group], *[features] * (longest - len(groups[group]))] for group in chosen]
            self.register_buffer(f"members_{bucket}", torch.tensor(padded, dtype=torch.int64))
            if weighted:
                self.weights.append(nn.Parameter(torch.ones(len(chosen), longest)))
        done = [group for _, chosen in sorted(buckets.items()) for group in chosen]
        self.register_buffer("place_P", torch.argsort(torch.tensor(done, dtype=torch.int64)))
        self.place_P: Tensor

    def reset_parameters(self) -> None:
        """Start with all members alike."""
        for weight in self.weights:
            nn.init.ones_(weight)

    def forward(self, basis_BFR: Tensor, loadings_FRD: Tensor) -> Tensor:
        """Sum over r and over the members f of each group of ``weight * basis * loading``: [B, P, D]."""
        padded_BFR = functional.pad(basis_BFR, (0, 0, 0, 1))
        last, width = loadings_FRD.shape[0] - 1, loadings_FRD.shape[-1]
        sums = []
        for bucket in range(self.buckets):
            members_PL: Tensor = getattr(self, f"members_{bucket}")
            count, length = members_PL.shape
            x_BPLR = padded_BFR.index_select(1, members_PL.flatten()).unflatten(1, (count, length))
            if len(self.weights):
                x_BPLR = x_BPLR * self.weights[bucket][..., None]
            loadings_PLD = functional.embedding(members_PL.clamp(max=last), loadings_FRD.flatten(1))
            x_PBL, loadings_PLD = x_BPLR.flatten(2).transpose(0, 1), loadings_PLD.reshape(count, -1, width)
            sums.append(torch.bmm(x_PBL, loadings_PLD.to(x_PBL.dtype)))
        return torch.cat(sums).index_select(0, self.place_P).transpose(0, 1)

    def count(self, observed_BF: Tensor) -> Tensor:
        """[B, P] int64, observed members of each group."""
        padded_BF = functional.pad(observed_BF, (0, 1))
        counts = [
            padded_BF.index_select(1, members.flatten()).unflatten(1, members.shape).sum(-1)
            for members in (getattr(self, f"members_{bucket}") for bucket in range(self.buckets))
        ]
        return torch.cat(counts, dim=1).index_select(1, self.place_P)


class GroupedTokenizer(Tokenizer):
    """One token per group of features of one modality.

    A token is the mean over the group's observed members, times the square root of the group's size: what is
    not measured does not shrink it, and in a large group the members' differences are not averaged away.

    Args:
        config: The part's own config.
        features: Modality to its features.
        width: D of a token.
        groups: Modality to its groups; none is empty.
        weighted: Whether each membership has a learned weight.
    """

    def __init__(
        self,
        config: Config,
        features: Mapping[str, OmicsModality],
        width: int,
        groups: Mapping[str, Groups],
        weighted: bool,
    ) -> None:
        super().__init__(config, features, width, [len(groups[name]) for name in features])
        self.sums = nn.ModuleList(
            GroupSum(groups[name], len(part.features), weighted) for name, part in features.items()
        )
        roots = [math.sqrt(len(group)) for name in features for group in groups[name]]
        self.register_buffer("root_of_size_S", torch.tensor(roots))
        self.root_of_size_S: Tensor

    def forward(self, omics: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tokenized:
        """See `Tokenizer.forward`."""
        sums, counts = [], []
        for name, group_sum in zip(self.embedding.modalities, self.sums, strict=True):
            assert isinstance(group_sum, GroupSum)
            basis_BFR = self.embedding.basis(name, omics[name], observed[name])
            sums.append(group_sum(basis_BFR, self.embedding.loadings(name)))
            counts.append(group_sum.count(observed[name]))
        count_BS = torch.cat(counts, dim=1)
        scale_BS = self.root_of_size_S / count_BS.clamp(min=1)
        tokens_BSD = torch.cat(sums, dim=1) * scale_BS[..., None] + self.embedding.modality(self.modality_S)
        return Tokenized(count_BS > 0, lambda rows_V, index_VT: tokens_BSD[rows_V[:, None], index_VT])
