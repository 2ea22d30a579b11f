"""SigLIP between towers: each pair of rows is judged by itself to be of one patient or of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foundation.model.view import TowerOutput, TowerSpec
from foundation.objectives.base import objectives
from foundation.objectives.contrastive.contrast import Contrast, siglip
from foundation.objectives.contrastive.pairs import PairwiseConfig, PairwiseObjective


class SigLIPConfig(PairwiseConfig):
    """Which pairs, how sharp, and how rare a positive is taken to be."""

    objective: Literal["siglip"] = "siglip"
    temperature: float = Field(default=0.1, gt=0, le=1, description="To start from; it is learned.")
    bias: float = Field(default=-10.0, description="To start from; it is learned. Low, since most pairs are negative.")


@objectives.register("siglip")
class SigLIP(PairwiseObjective):
    """Pairwise sigmoid loss with several positives per patient; see `contrast.siglip`."""

    Config = SigLIPConfig

    def __init__(self, config: SigLIPConfig, specs: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
        super().__init__(config, specs, widths)
        # One dimension, as what is sharded or gathered by dimension cannot be a scalar.
        self.bias = nn.Parameter(torch.tensor([config.bias]))

    @classmethod
    def tiny(cls) -> SigLIPConfig:
        """The defaults: it has no size."""
        return SigLIPConfig()

    def contrast(self, one: TowerOutput, other: TowerOutput, patients_B: Tensor, scale: Tensor) -> Contrast:
        """Compare two views."""
        return siglip(one.z_BD, other.z_BD, one.present_B, other.present_B, patients_B, scale, self.bias[0])
