"""One token per feature and modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from foundation.config import Config
from foundation.modality import OmicsModality
from foundation.model.tokenizers.base import Tokenized, Tokenizer, tokenizers


class GeneConfig(Config):
    """Every measured feature is a token."""

    tokenizer: Literal["gene"] = "gene"


@tokenizers.register("gene")
class GeneTokenizer(Tokenizer):
    """See `Tokenizer`; the possible tokens are the features of all modalities, one modality after another."""

    Config = GeneConfig

    def __init__(self, config: GeneConfig, features: Mapping[str, OmicsModality], width: int) -> None:
        super().__init__(config, features, width, [len(part.features) for part in features.values()])

    @classmethod
    def tiny(cls) -> GeneConfig:
        """See `Tokenizer.tiny`."""
        return GeneConfig()

    def forward(self, omics: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tokenized:
        """See `Tokenizer.forward`."""
        modalities = self.embedding.modalities
        most = 1 + max(self.embedding.pieces.values())
        bases = [self.embedding.basis(name, omics[name], observed[name]) for name in modalities]
        loadings = [self.embedding.loadings(name) for name in modalities]
        basis_BSR = torch.cat([functional.pad(part, (0, most - part.shape[-1])) for part in bases], dim=1)
        loadings_SRD = torch.cat([functional.pad(part, (0, 0, 0, most - part.shape[1])) for part in loadings])

        def take(rows_V: Tensor, index_VT: Tensor) -> Tensor:
            basis_VTR = basis_BSR[rows_V[:, None], index_VT]
            tokens_VTD = self.embedding.modality(self.modality_S[index_VT])
            # One function after another: all at once would hold R times the tokens.
            for r in range(most):
                tokens_VTD = tokens_VTD + basis_VTR[..., r, None] * functional.embedding(index_VT, loadings_SRD[:, r])
            return tokens_VTD

        return Tokenized(torch.cat([observed[name] for name in modalities], dim=1), take)
