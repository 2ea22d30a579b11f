"""The time of a step: what it computes, what it communicates, and how much of that can hide behind the computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.planning.hardware import Hardware
from pretrain.planning.strategies import Kind, Traffic

KINDS: tuple[Kind, ...] = ("gradients", "parameters", "contrast")


@dataclass(frozen=True)
class Timing:
    """A step of a strategy on each GPU.

    Attributes:
        compute: Seconds.
        sent: Kind to bytes over the network.
        seconds: Kind to seconds of communication.
        shortest, longest: Seconds of the step with as much communication hidden behind computation as can be, and with
            none hidden.
    """

    compute: float
    sent: dict[Kind, float]
    seconds: dict[Kind, float]
    shortest: float
    longest: float

    @property
    def efficiency(self) -> tuple[float, float]:
        """Share of the longest and of the shortest step that is computation."""
        return self.compute / self.longest, self.compute / self.shortest


def timing_of(traffic: Sequence[Traffic], hardware: Hardware, gpus: int, compute: float) -> Timing:
    """Time a step.

    Args:
        traffic: Of the step.
        hardware: The machines.
        gpus: How many.
        compute: Seconds that each of them computes.
    """
    sent, seconds = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
    hidden = 0.0
    for each in traffic:
        takes = hardware.seconds(each.collective, each.size, each.count, gpus)
        sent[each.kind] += each.sent(gpus)
        seconds[each.kind] += takes
        hidden += takes * each.hidden
    total = sum(seconds.values())
    # What is hidden may be longer than what hides it.
    return Timing(compute, sent, seconds, total - hidden + max(compute, hidden), compute + total)
