"""What a fusion is: it masks what is absent, joins the embeddings of the rest into one, and normalises that."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional

from foundation.config import Config
from foundation.model.layers.values import at_least_single, masked
from foundation.registry import Registry

fusions: Registry = Registry("fusion", "fusion")


class Fusion(nn.Module, ABC):
    """A way to join embeddings.

    Args:
        config: The part's own config.
        width: D of the embeddings and of the joined one.
        count: M, how many may be present.
    """

    Config: type[Config]

    def __init__(self, config: Config, width: int, count: int) -> None:
        super().__init__()
        self.width = width
        self.count = count

    @classmethod
    @abstractmethod
    def tiny(cls) -> Config:
        """The smallest useful config, for a laptop or a test."""

    def forward(self, z_BMD: Tensor, present_BM: Tensor) -> Tensor:
        """Join embeddings.

        Args:
            z_BMD: Normalised embeddings; anything where not present.
            present_BM: Bool.

        Returns:
            [B, D] of length 1; zeros where nothing is present.
        """
        joined_BD = self.join(masked(z_BMD, present_BM[..., None]), present_BM)
        return masked(functional.normalize(at_least_single(joined_BD), dim=-1), present_BM.any(dim=1, keepdim=True))

    @abstractmethod
    def join(self, z_BMD: Tensor, present_BM: Tensor) -> Tensor:
        """[B, D], of any length; finite also where nothing is present. Here absent embeddings are zeros."""
