"""What an objective is: it asks for views of a batch, and turns what the towers make of them into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from foundation.config import Config
from foundation.data.sample import Batch
from foundation.registry import Registry
from foundation.tower import OmicsFeatures, Tokens

objectives: Registry = Registry("objective", "objective")

FUSED = "fused"
"""In place of a tower's name: all towers, joined by the fusion."""


@dataclass(frozen=True)
class TowerSite:
    """Where a tower stands in a model.

    Attributes:
        name: Of the tower.
        kind: What it looks at.
        modalities: The one image modality, or every omics modality, in the order of its tokens.
        features: Of each omics modality.
        channels: Of the image.
        patch, grid: Of an image tower: voxels per axis of what one token sees, and tokens per axis.
    """

    name: str
    kind: Literal["image", "omics"]
    modalities: tuple[str, ...]
    features: tuple[OmicsFeatures, ...] = ()
    channels: int = 0
    patch: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()


@dataclass
class View:
    """One tower's look at a batch.

    Attributes:
        tower: Name of the tower.
        keep_BM: Bool, the modalities it may see; what is absent stays absent.
        hidden: Omics modality to bool [B, F], features to hide; or image modality to bool [B, T], patches.
        weight_B: How much each record counts in a loss that is a sum over records, over all processes 1: set where the
            whole batch is known, for a loss that may be shown a part of it. None for objectives that are shown all.
    """

    tower: str
    keep_BM: Tensor
    hidden: dict[str, Tensor] = field(default_factory=dict)
    weight_B: Tensor | None = None

    def part(self, start: int, stop: int) -> View:
        """The same look at records `start` to `stop` of the batch."""
        hidden = {name: mask[start:stop] for name, mask in self.hidden.items()}
        weight_B = None if self.weight_B is None else self.weight_B[start:stop]
        return View(self.tower, self.keep_BM[start:stop], hidden, weight_B)


@dataclass
class Seen:
    """What came of a view.

    Attributes:
        z_BD: Normalised embedding in the shared space; zeros where the record has nothing to see.
        present_B: Bool, the record has something to see.
        view: What was asked for.
        tokens: Of the rows with something to see; None unless the objective's `needs_tokens`.
        rows: [P] int64, rows of the batch that `tokens` are of; where nobody has anything, a stand-in that is not
            present.
        patches: [P, T, C * voxels] what each token of an image would have seen, whatever in absent channels; None
            unless there are tokens and the view hides some.
    """

    z_BD: Tensor
    present_B: Tensor
    view: View
    tokens: Tokens | None = None
    rows: Tensor | None = None
    patches: Tensor | None = None


@dataclass
class Loss:
    """A loss and what to log of it.

    Attributes:
        value: Scalar. The sum over all processes of `value` is the loss of the whole batch, so that summed gradients
            are those of a single process.
        logged: Name to scalar, detached, already the same on every process.
    """

    value: Tensor
    logged: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A pretraining objective; may have parameters, such as a temperature or a prediction head.

    Args:
        config: The part's own config.
        sites: The model's towers.
        widths: Tower to the width of its tokens, and ``fused`` to that of the shared space; for heads.
    """

    Config: type[Config]
    needs_tokens: bool = False
    """Whether it reads tokens. Where a batch is embedded in chunks its embeddings are kept for the loss, but not its
    tokens: such a loss is a sum over records, with the weights of their views, and is computed chunk by chunk."""

    def __init__(self, config: Config, sites: Sequence[TowerSite], widths: Mapping[str, int]) -> None:
        super().__init__()

    @classmethod
    @abstractmethod
    def tiny(cls) -> Config:
        """The smallest useful config, for a laptop or a test."""

    @abstractmethod
    def views(self, batch: Batch, seed: int) -> dict[str, View]:
        """What it wants to see; a view without any present record is allowed.

        Args:
            batch: This process's records.
            seed: Of the run; draws are keyed by (seed, purpose, record, epoch) with `foundation.data.randomness`.
        """

    @abstractmethod
    def forward(self, seen: Mapping[str, Seen], batch: Batch) -> Loss:
        """The loss of this process's share of the batch; exact over all processes of the default group."""
