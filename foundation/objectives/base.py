"""What an objective is: it asks for views of a batch, and turns what the towers make of them into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from foundation.config import Config
from foundation.data.batch import Batch
from foundation.model.view import TowerOutput, TowerSpec, View
from foundation.registry import Registry

objectives: Registry = Registry("objective", "objective")


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

    def __init__(self, config: Config, sites: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
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
            seed: Of the run; draws are keyed by (seed, purpose, record, epoch) with `foundation.randomness`.
        """

    @abstractmethod
    def forward(self, seen: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """The loss of this process's share of the batch; exact over all processes of the default group."""
