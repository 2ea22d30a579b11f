"""Requests to stop a run, heard by any of its processes and known to all at the same step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch

from foundation.collectives import max_over_processes
from foundation.errors import ChiasmaError

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 75}
"""SIGUSR1 is how a batch system says that time is nearly up; 75 (try again) asks it to start the run once more."""

REPEATED = 5.0
CPU = torch.device("cpu")


class Stopped(ChiasmaError):  # noqa: N818  (nothing is wrong)
    """A run ended because somebody asked for it, with a checkpoint of where it was."""


class StopRequests:
    """While this lasts, SIGTERM and SIGUSR1 are noted and the run goes on to the end of its step.

    Some batch systems tell a launcher, which passes it on, and its workers too: what follows within `REPEATED` seconds
    is the same request. A later one ends the process at once, as it would have without this.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        # Only the main thread of a process may say what a signal does.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._asked:
            self._asked, self._since = number, now
        elif now - self._since > REPEATED:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)

    def of_all(self) -> int:
        """The signal that any process was sent, 0 for none; every process calls this after every step."""
        return max_over_processes(self._asked, CPU)


def stopped(number: int, step: int) -> Stopped:
    """What is told of a run that stopped after a step, which is saved."""
    name = signal.Signals(number)
    error = Stopped(
        f"stopped by {name.name} after step {step}, which is saved; start the same command again and it goes on from "
        "there"
    )
    error.exit_code = EXIT_CODES[name]
    return error
