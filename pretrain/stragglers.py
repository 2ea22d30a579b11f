"""Stragglers: which process takes longest for what it does alone, before the others have to wait for it."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Sequence

from foundation.collectives import everyones

SLOW = 1.25
"""Times the median of all processes."""

SHARE = 0.05
"""Of all time, that the others wait for one, before it is worth a word."""

EVERY = 60.0
"""Seconds over which is looked for one."""


class Stragglers:
    """Names the process that others wait for, when it is slow for a minute, and again when it is another one."""

    def __init__(self) -> None:
        self.hosts = everyones(socket.gethostname())
        self.alone = [0.0] * len(self.hosts)
        self.named: int | None = None
        self.since = time.perf_counter()

    def hear(self, seconds: Sequence[float]) -> str | None:
        """A sentence where there is a new one to name.

        Args:
            seconds: Of each process, since the last call, that it loaded records and embedded them.
        """
        self.alone = [sum(pair) for pair in zip(self.alone, seconds, strict=True)]
        past = time.perf_counter() - self.since
        if past < EVERY:
            return None
        found, alone = slowest(self.alone, past), self.alone
        self.alone, self.since = [0.0] * len(self.hosts), time.perf_counter()
        if found is None or found == self.named:
            return None
        self.named = found
        return f"{sentence(alone, found)}, on {self.hosts[found]}; the others wait for it"


def slowest(seconds: Sequence[float], past: float) -> int | None:
    """The process that others wait for, or None.

    Args:
        seconds: Of each process.
        past: Seconds of all steps.
    """
    middle, most = statistics.median_low(seconds), max(seconds)
    if most > SLOW * middle and most - middle > SHARE * past:
        return seconds.index(most)
    return None


def sentence(seconds: Sequence[float], number: int) -> str:
    """That a process is slow, and how slow."""
    times = seconds[number] / max(statistics.median_low(seconds), 1e-9)
    return f"process {number} takes {times:.1f} times as long as the median to load and embed its records"
