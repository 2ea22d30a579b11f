"""An exponential moving average of parameters, which follows closely at first and smooths more and more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foundation.training.parallel.base import Parallel

UPDATES = "updates"


class Average:
    """Averages of parameters by name, which can be put in place of the parameters for a while.

    The first update copies. Update n after it keeps a share ``(1 + n) / (10 + n)`` of the average, until that reaches
    `decay`: so the average goes back over about a tenth of the updates, and where it began does not rule a short run.
    Buffers are those of the module.

    Args:
        module: Whose trained parameters are averaged.
        decay: In the long run; the average then goes back over about 1 / (1 - decay) updates.
        parallel: Each process averages what it keeps of a parameter.
    """

    def __init__(self, module: nn.Module, decay: float, parallel: Parallel) -> None:
        self.decay = decay
        self.parallel = parallel
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.averages = {name: parallel.own(p).clone() for name, p in self.parameters.items()}
        self.updates = torch.zeros((), dtype=torch.float64, device=next(iter(self.averages.values())).device)

    @torch.no_grad()
    def update(self, happened: Tensor) -> None:
        """Follow the parameters.

        Args:
            happened: Scalar bool on their device; where it is False nothing changes, and nothing waits to find out.
        """
        keep = torch.where(self.updates > 0, kept(self.updates, self.decay), 0.0)
        weight = torch.where(happened, 1 - keep, 0.0)
        for name, average in self.averages.items():
            average.lerp_(self.parallel.own(self.parameters[name]), weight.to(average.dtype))
        self.updates += happened

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts, the parameters are at their average."""
        self.settle()
        try:
            yield
        finally:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Exchange the parameters and their average."""
        for name, average in self.averages.items():
            own = self.parallel.own(self.parameters[name])
            current = own.clone()
            own.copy_(average)
            average.copy_(current)

    def state_dict(self) -> dict[str, Tensor]:
        """By name of the parameter, as parts of a whole where it is one; and how many updates there were."""
        parts = {name: self.parallel.part_of(self.parameters[name], own) for name, own in self.averages.items()}
        return {**parts, UPDATES: self.updates}


def kept(update: Tensor | int, decay: float) -> Tensor:
    """What an update keeps of the average that there was."""
    update = torch.as_tensor(update, dtype=torch.float64)
    return ((1 + update) / (10 + update)).clamp(max=decay)
