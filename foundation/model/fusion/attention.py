"""Attention over one token per modality, read out by a learned query."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foundation.config import Config
from foundation.model.fusion.base import Fusion, fusions
from foundation.model.layers.transformer import Block

INITIAL_SCALE = 0.02


class AttentionConfig(Config):
    """Size of the transformer over modalities."""

    fusion: Literal["attention"] = "attention"
    depth: int = Field(default=1, ge=1, description="Number of blocks.")
    heads: int = Field(default=4, ge=1, description="Divides the width of the embeddings.")
    mlp_ratio: float = Field(default=2.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


@fusions.register("attention")
class AttentionFusion(Fusion):
    """See `Fusion`; learns what to add to the mean of what is present.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    Config = AttentionConfig

    def __init__(self, config: AttentionConfig, width: int, count: int) -> None:
        super().__init__(config, width, count)
        self.query = nn.Parameter(torch.empty(width))
        self.modality_MD = nn.Parameter(torch.empty(count, width))
        nn.init.normal_(self.query, std=INITIAL_SCALE)
        nn.init.normal_(self.modality_MD, std=INITIAL_SCALE)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        nn.init.normal_(self.out.weight, std=INITIAL_SCALE / width**0.5)
        nn.init.zeros_(self.out.bias)

    @classmethod
    def tiny(cls) -> AttentionConfig:
        """See `Fusion.tiny`."""
        return AttentionConfig(heads=2, mlp_ratio=1)

    def join(self, z_BMD: Tensor, present_BM: Tensor) -> Tensor:
        """See `Fusion.join`."""
        x_BTD = torch.cat([self.query.expand(len(z_BMD), 1, -1), z_BMD + self.modality_MD], dim=1)
        # The query may always be attended to, so that a record with nothing present has no empty softmax.
        real_BT = torch.cat([torch.ones_like(present_BM[:, :1]), present_BM], dim=1)
        for block in self.blocks:
            x_BTD = block(x_BTD, real_BT)
        mean_BD = z_BMD.sum(dim=1) / present_BM.sum(dim=1, keepdim=True).clamp(min=1)
        return mean_BD + self.out(self.norm(x_BTD[:, 0]))
