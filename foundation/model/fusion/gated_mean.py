"""A mean of what is present, weighted by a gate computed from each embedding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from foundation.config import Config
from foundation.model.fusion.base import Fusion, fusions


class GatedMeanConfig(Config):
    """Nothing to set."""

    fusion: Literal["gated_mean"] = "gated_mean"


@fusions.register("gated_mean")
class GatedMean(Fusion):
    """See `Fusion`; starts as the plain mean."""

    Config = GatedMeanConfig

    def __init__(self, config: GatedMeanConfig, width: int, count: int) -> None:
        super().__init__(config, width, count)
        self.gate_MD = nn.Parameter(torch.zeros(count, width))
        self.bias_M = nn.Parameter(torch.zeros(count))

    @classmethod
    def tiny(cls) -> GatedMeanConfig:
        """See `Fusion.tiny`."""
        return GatedMeanConfig()

    def join(self, z_BMD: Tensor, present_BM: Tensor) -> Tensor:
        """See `Fusion.join`."""
        score_BM = (z_BMD * self.gate_MD).sum(-1) + self.bias_M
        # Finite, so that a record with nothing present has gates rather than NaN.
        lowest = torch.finfo(score_BM.dtype).min
        gate_BM = torch.where(present_BM, score_BM, lowest).softmax(dim=-1)
        return (gate_BM[..., None] * z_BMD).sum(dim=1)
