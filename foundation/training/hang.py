"""A run that hangs: every process writes down where it stands, the first says so, and the run ends."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from foundation.collectives import rank, world_size
from foundation.errors import ChiasmaError
from foundation.wording import duration, listed

GRACE = 5.0
"""Seconds in which the other processes write too; they then wait as long again for the first one to speak."""

OFTEN = 10
"""The timer is set anew after each tenth of its time, and not after every step."""

ROOMS = ("foundation", "pretrain", "finetune")


class HangWatch:
    """While this lasts a process that finishes no step for some time writes the stack of all its threads, and ends.

    The stacks are written by faulthandler, whose timer needs nothing of Python to go on. The files are gone after a
    run that did not hang.

    Args:
        folder: For a file of each process.
        seconds: Without a step; between nine tenths of it and all of it are waited.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.path = folder / f"process-{rank()}.txt"
        self._over = threading.Event()

    def __enter__(self) -> HangWatch:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        self._file.write(
            f"process {rank()} of {world_size()} on {socket.gethostname()}, number {os.getpid()}; its main thread is "
            f"{threading.main_thread().ident:#018x}\n"
        )
        self._file.flush()
        self._written = self._file.tell()
        self._arm()
        threading.Thread(target=self._end_if_hanging, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        faulthandler.cancel_dump_traceback_later()
        silent = os.fstat(self._file.fileno()).st_size == self._written
        self._file.close()
        if silent:
            self.path.unlink(missing_ok=True)
            # The last process finds the folder empty.
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def moved(self) -> None:
        """A step is done."""
        if time.monotonic() - self._armed > self.seconds / OFTEN:
            self._arm()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While this lasts no step is expected."""
        faulthandler.cancel_dump_traceback_later()
        self._armed = float("inf")
        try:
            yield
        finally:
            self._arm()

    def _arm(self) -> None:
        self._armed = time.monotonic()
        faulthandler.dump_traceback_later(self.seconds, file=self._file)

    def _end_if_hanging(self) -> None:
        patience = self.seconds + (GRACE if rank() == 0 else 2 * GRACE)
        while (left := self._armed + patience - time.monotonic()) > 0:
            if self._over.wait(min(left, self.seconds / OFTEN)):
                return
        if rank() == 0:
            print(f"chiasma: {self._told()}", file=sys.stderr, flush=True)
        os._exit(ChiasmaError.exit_code)

    def _told(self) -> ChiasmaError:
        return ChiasmaError(
            f"no step was finished in {duration(self.seconds)}: {listed(_places(self.folder))}",
            where=str(self.folder),
            fix="read there what every process waits for; started again, the run goes on from its newest checkpoint. "
            "If steps may take as long, raise hang_after",
        )


def _places(folder: Path) -> list[str]:
    """Where the main thread of each process stands, processes of one place together."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.glob("process-*.txt")):
        found.setdefault(place_in(path.read_text(encoding="utf-8")), []).append(int(path.stem.partition("-")[2]))
    return [f"{_numbers(sorted(numbers))} in {place}" for place, numbers in found.items()]


def _numbers(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"process {numbers[0]} is"
    shown = listed([str(number) for number in numbers]) if len(numbers) <= 8 else f"{numbers[0]}, {numbers[1]} …"
    return f"{len(numbers)} processes ({shown}) are"


def place_in(stacks: str) -> str:
    """The innermost line of chiasma in the stack of the main thread, as ``function, file:line``.

    Args:
        stacks: What a process wrote.
    """
    main = re.search(r"main thread is 0x0*([0-9a-f]+)", stacks)
    of_main = main and re.search(rf"^(?:Current t|T)hread 0x0*{main[1]}\b.*\n((?:  File .*\n?)+)", stacks, re.MULTILINE)
    if not of_main:
        return "a place that it did not write down"
    frames = re.findall(r'File "(.*)", line (\d+) in (\S+)', of_main[1])
    for path, line, function in frames:
        rooms = [place for place in ROOMS if f"/{place}/" in path]
        if rooms:
            return f"{function} ({rooms[0]}/{path.rpartition(f'/{rooms[0]}/')[2]}:{line})"
    path, line, function = frames[0]
    return f"{function} ({path}:{line})"
