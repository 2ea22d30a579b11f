"""One token per chunk of neighbouring features of a modality, in the order of its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from foundation.config import Config
from foundation.modality import OmicsModality
from foundation.model.tokenizers.base import tokenizers
from foundation.model.tokenizers.grouped import GroupedTokenizer


class ChunkConfig(Config):
    """Chunks of fixed size."""

    tokenizer: Literal["chunk"] = "chunk"
    size: int = Field(default=64, ge=1, description="Features of a chunk; the last of a modality may have fewer.")


@tokenizers.register("chunk")
class ChunkTokenizer(GroupedTokenizer):
    """See `GroupedTokenizer`; each feature is in one chunk, so its loadings need no further weight."""

    Config = ChunkConfig

    def __init__(self, config: ChunkConfig, features: Mapping[str, OmicsModality], width: int) -> None:
        groups = {
            name: [
                range(start, min(start + config.size, len(part.features)))
                for start in range(0, len(part.features), config.size)
            ]
            for name, part in features.items()
        }
        super().__init__(config, features, width, groups, weighted=False)

    @classmethod
    def tiny(cls) -> ChunkConfig:
        """See `Tokenizer.tiny`."""
        return ChunkConfig(size=2)
