"""What an objective is: it asks for views of a batch, and turns what the towers make of them into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from foundation.config import Config
from foundation.data.batch import Batch
from foundation.model.view import TowerOutput, TowerSpec, View
from foundation.registry import Registry

objectives: Registry = Registry("objective", "objective")


@dataclass
class Loss:
    """A loss and its named parts.

    Attributes:
        value: Scalar, this process's share: the sum over all processes is the loss of the whole batch, so that summed
            gradients are those of a single process.
        parts: Name to scalar, detached: shares of parts of the loss, which add up over processes as `value` does.
        facts: Name to scalar, detached: what else to log, the same on every process.
    """

    value: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A pretraining objective; may have parameters, such as a temperature or a prediction head.

    Args:
        config: The part's own config.
        specs: The model's towers.
        widths: Tower to the width of its tokens, and ``fused`` to that of the shared space; for heads.

    Attributes:
        by_record: Whether the loss is a sum over records, each with the weight that its view gives it. Such a loss may
            read tokens, runs no collective in `forward`, and is given a large batch chunk by chunk; any other is given
            all embeddings of the batch at once, and no tokens.
    """

    Config: type[Config]
    by_record: bool = False

    def __init__(self, config: Config, specs: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
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
    def forward(self, outputs: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """The loss of this process's share of the batch; exact over all processes of the default group."""
