"""What a tokenizer is: it turns the measured features of all omics modalities into tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foundation.config import Config
from foundation.modality import OmicsModality
from foundation.model.layers.feature_embedding import FeatureEmbedding
from foundation.registry import Registry

tokenizers: Registry = Registry("tokenizer", "tokenizer")


@dataclass
class Tokenized:
    """The possible tokens of some records, made on demand.

    Attributes:
        real_BS: Bool, the token stands for something that was observed.
        take: From rows [V] and positions [V, T] (int64) among the possible tokens S to their vectors [V, T, D];
            a row may be asked for several times. The vector of a token that is not real is whatever, but finite.
    """

    real_BS: Tensor
    take: Callable[[Tensor, Tensor], Tensor]


class Tokenizer(nn.Module, ABC):
    """A way to make tokens of omics features.

    Args:
        config: The part's own config.
        features: Modality to its features, in the order in which tokens name modalities.
        width: D of a token.
        tokens: Possible tokens of each modality, in the same order.

    Attributes:
        embedding: What stands for each feature.
        modality_S: [S] int64, position of each possible token's modality.
    """

    Config: type[Config]

    def __init__(
        self, config: Config, features: Mapping[str, OmicsModality], width: int, tokens: Sequence[int]
    ) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(features, width)
        self.possible_tokens = sum(tokens)
        modality = [position for position, count in enumerate(tokens) for _ in range(count)]
        self.register_buffer("modality_S", torch.tensor(modality, dtype=torch.int64))
        self.modality_S: Tensor

    @classmethod
    @abstractmethod
    def tiny(cls) -> Config:
        """The smallest useful config, for a laptop or a test."""

    @classmethod
    def self_contained(cls, config: Any) -> Any:
        """The same config without reference to any file, so that a model that is moved still knows all of it."""
        return config

    @abstractmethod
    def forward(self, omics: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tokenized:
        """Prepare tokens.

        Args:
            omics: Modality to scaled values [B, F]; anything where not observed.
            observed: Modality to bool [B, F].
        """
