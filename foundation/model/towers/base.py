"""What a tower is: one image modality, or several omics modalities together, into tokens and one pooled vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field
from torch import Tensor, nn

from foundation.config import Config
from foundation.hub.address import pinned
from foundation.model.weights import Loaded
from foundation.registry import Registry

towers: Registry = Registry("tower", "tower")


@dataclass
class Tokens:
    """What a tower makes of some records, each of which has something for it.

    Attributes:
        pooled_BD: One vector per record, not normalised.
        tokens_BTD: Its tokens after the last layer; whatever where `real_BT` is False.
        real_BT: Bool, the token stands for something that was observed; not so where a patch was hidden.
        modality_T: [T] or [B, T] int64, position of each token's modality among the tower's; 0 for an image tower.
        extras: Name to [B, ...] what else a tower makes of each record, such as a mean and a log variance; ``patches``
            are what the tokens of an image would have seen, where a view asks for targets.
    """

    pooled_BD: Tensor
    tokens_BTD: Tensor
    real_BT: Tensor
    modality_T: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    def first(self, count: int) -> Tokens:
        """Those of the first records."""
        modality_T = self.modality_T if self.modality_T.ndim == 1 else self.modality_T[:count]
        extras = {name: values[:count] for name, values in self.extras.items()}
        return Tokens(self.pooled_BD[:count], self.tokens_BTD[:count], self.real_BT[:count], modality_T, extras)


class TowerConfig(Config):
    """What every tower lets one choose."""

    modalities: list[str] | None = Field(
        default=None,
        min_length=1,
        description="What it reads: one image modality, or several omics modalities. By default an image tower reads "
        "the modality of its own name, and an omics tower all omics modalities that no other tower names.",
    )

    @property
    def part(self) -> str:
        """Name of the tower's kind in the registry."""
        return getattr(self, towers.tag)

    @property
    def begins_with(self) -> Path | str | None:
        """Weights of others, as the config names them; None where initial weights are random."""
        weights = getattr(self, "weights", "none")
        return None if weights == "none" else weights

    def pinned(self) -> Self:
        """The same config, with the commit of weights that come from a model hub."""
        return self.model_copy(update={k: pinned(v) for k, v in self if k == "weights"})


class Tower(nn.Module, ABC):
    """What every tower has, whatever it reads.

    Attributes:
        width: D of its output.
        stem: How the names of the parameters begin that lie before the first block.
        weights: What was taken from pretrained weights; None where initial weights are random.
    """

    Config: type[TowerConfig]
    width: int
    stem: tuple[str, ...]
    weights: Loaded | None = None

    @classmethod
    @abstractmethod
    def tiny(cls) -> TowerConfig:
        """The smallest useful config, for a laptop or a test."""

    @abstractmethod
    def stack(self) -> list[nn.Module]:
        """The blocks that it is a stack of, from the input to the output."""

    def layers(self) -> list[list[str]]:
        """Names of its parameters from the input to the output: the stem, each block, and the rest.

        Each is in exactly one layer. What pretrained weights never bring, such as a pool, belongs to the rest.
        """
        depth = {id(p): 1 + number for number, block in enumerate(self.stack()) for p in block.parameters()}
        layers: list[list[str]] = [[] for _ in range(len(self.stack()) + 2)]
        for name, parameter in self.named_parameters():
            layers[depth.get(id(parameter), 0 if name.startswith(self.stem) else -1)].append(name)
        return layers


class ImageTower(Tower):
    """A tower for one image modality.

    Args:
        config: The part's own config.
        channels: Number of channels.
        shape: Voxels per axis: two numbers for 2D images, three for volumes.

    Attributes:
        patch: Voxels per axis of what one token sees, as many numbers as `shape` has.
        grid: Tokens per axis; T is their product, and tokens run over `order` from the slowest to the fastest.
        order: Axes of the image in the order of the tokens.
        dimensions: Numbers of axes that an image may have; 2, 3 or both.

    Raises:
        ConfigError: The image does not fit the config, for example a patch larger than the image.
    """

    patch: tuple[int, ...]
    grid: tuple[int, ...]
    order: tuple[int, ...]
    dimensions: tuple[int, ...] = (2, 3)

    @classmethod
    def self_contained(cls, config: Any) -> TowerConfig:
        """The same config for a model whose weights are its own: nothing is to be loaded from elsewhere again."""
        return config.model_copy(update={"weights": "none"})

    @abstractmethod
    def forward(self, x_BCXYZ: Tensor, channels_BC: Tensor, hidden_BT: Tensor | None = None) -> Tokens:
        """Read images.

        Args:
            x_BCXYZ: Standardised intensities, [B, C, X, Y] for 2D images; anything in an absent channel.
            channels_BC: Bool, acquired channels; at least one per record, none of a dummy row.
            hidden_BT: Bool, patches to replace by a learned mask token, in the order of `patches`; None hides none.
        """

    @abstractmethod
    def patches(self, x_BCXYZ: Tensor) -> Tensor:
        """The image cut into what each token sees, [B, T, C * voxels]: the target of masked image modelling.

        The channels of a patch follow each other, so that `.unflatten(-1, (C, -1))` tells them apart; what is in an
        absent channel is whatever the image held there.
        """


class OmicsTower(Tower):
    """A tower for several omics modalities at once, in one sequence.

    Args:
        config: The part's own config.
        features: Modality to what it is, in the order in which tokens name modalities.

    Attributes:
        max_tokens: Of a sequence in training.
    """

    max_tokens: int

    @classmethod
    def self_contained(cls, config: Any) -> TowerConfig:
        """The same config without reference to any file, so that a model that is moved still knows all of it."""
        return config

    @abstractmethod
    def forward(
        self,
        omics: Mapping[str, Tensor],
        observed: Mapping[str, Tensor],
        draws_BS: Tensor | None = None,
    ) -> Tokens:
        """Read omics.

        Args:
            omics: Modality to scaled values [B, F]; anything where not observed.
            observed: Modality to bool [B, F]; of a record without any, what comes out is finite and counts for nothing.
            draws_BS: Uniform numbers in [0, 1) per record that decide which tokens are kept when there are more
                than `max_tokens`, [B, S] with S the number of possible tokens; None (evaluation) keeps all, in
                several sequences if need be.
        """

    @property
    @abstractmethod
    def possible_tokens(self) -> int:
        """S: tokens of a patient of whom everything was measured."""


class FactorInit(ABC):
    """A tower that can be initialised so that its pooled vector gives known factors; optional for an omics tower."""

    @abstractmethod
    def init_from(self, weights: Mapping[str, Tensor]) -> None:
        """Initialise.

        Args:
            weights: Modality to [F, K], K at most D: what each feature weighs in each factor.
        """


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Parameters in all, and those that are trained."""
    sizes: dict[str, Any] = {"total": 0, "trainable": 0}
    for parameter in module.parameters():
        sizes["total"] += parameter.numel()
        sizes["trainable"] += parameter.numel() * parameter.requires_grad
    return sizes
