"""InfoNCE between towers: each row has to find its patient among all rows of the other side."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from foundation.model.view import TowerOutput
from foundation.objectives.base import objectives
from foundation.objectives.contrastive.contrast import Contrast, infonce
from foundation.objectives.contrastive.pairs import PairwiseConfig, PairwiseObjective


class InfoNCEConfig(PairwiseConfig):
    """Which pairs, and how sharp."""

    objective: Literal["infonce"] = "infonce"


@objectives.register("infonce")
class InfoNCE(PairwiseObjective):
    """Symmetric InfoNCE with several positives per patient; see `contrast.infonce`."""

    Config = InfoNCEConfig

    @classmethod
    def tiny(cls) -> InfoNCEConfig:
        """The defaults: it has no size."""
        return InfoNCEConfig()

    def contrast(self, one: TowerOutput, other: TowerOutput, patients_B: Tensor, scale: Tensor) -> Contrast:
        """Compare two views."""
        return infonce(one.z_BD, other.z_BD, one.present_B, other.present_B, patients_B, scale)
