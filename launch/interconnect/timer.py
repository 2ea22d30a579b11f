"""Times of repeated calls: of one process, or of all at once, with the same number of repeats everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from foundation.collectives import everyones

SECONDS, FEWEST, MOST = 0.2, 5, 50
"""For which one call is repeated, and how often at least and at most."""


class Timer:
    """It lets a GPU finish before it looks.

    Args:
        device: Where calls compute.
        timeout: Seconds for which a GPU may take; a processor's libraries have timeouts of their own.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.device = device
        self.timeout = timeout

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call.

        Raises:
            RuntimeError: It does not end.
        """
        began = time.perf_counter()
        call()
        if self.device.type == "cuda":
            done = torch.cuda.Event()
            done.record()
            while not done.query():
                if time.perf_counter() - began > self.timeout:
                    raise RuntimeError(f"it did not end within {self.timeout:g} s")
        return time.perf_counter() - began

    def alone(self, call: Callable[[], object]) -> float:
        """Median of repeats of this process, after one call that warms up."""
        self.seconds(call)
        return self._median(call, _repeats(self.seconds(call)))

    def together(self, call: Callable[[], object]) -> tuple[float, int]:
        """Median of repeats on the slowest process, after one call that warms up, and how many repeats."""
        self.seconds(call)
        repeats = _repeats(max(everyones(self.seconds(call))))
        return max(everyones(self._median(call, repeats))), repeats

    def _median(self, call: Callable[[], object], repeats: int) -> float:
        return median(self.seconds(call) for _ in range(repeats))


def _repeats(seconds: float) -> int:
    return min(MOST, max(FEWEST, round(SECONDS / seconds)))
