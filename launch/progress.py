"""Progress on the terminal: a bar with a rate and the time left, or a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SILENT_SECONDS = 2.0
"""Work that is over sooner shows nothing."""

LINE_SECONDS = 5.0
"""Between two lines where there is no terminal."""

REDRAW_SECONDS = 0.1


class Progress:
    """`foundation.progress.Progress` on stderr; a context manager, so that a failure leaves the terminal whole.

    Everything is drawn from `advance`: a thread of its own could be caught halfway by a fork of the worker processes.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bar: tuple[Bar, TaskID] | None = None
        self.start("", None, "")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Begin a piece of work of `total` units."""
        self._close()
        self._label, self._total, self._unit = label, total, unit
        self._done = self._bytes = 0
        self._began = self._clock()
        self._shown: float | None = None
        if label and total is None and _is_terminal():
            self._show()

    def advance(self, n: int = 1, bytes: int = 0) -> None:
        """Count what was done, and show it if that is due."""
        self._done += n
        self._bytes += bytes
        now = self._clock()
        if now - self._began < SILENT_SECONDS:
            return
        pause = REDRAW_SECONDS if _is_terminal() else LINE_SECONDS
        if self._shown is None or now - self._shown >= pause:
            self._shown = now
            self._show()

    def finish(self) -> None:
        """End the piece of work; in place of the bar stays a line, if it was long enough for one."""
        self._close()
        if self._label and self._clock() - self._began >= SILENT_SECONDS:
            print(self.line(ended=True), file=sys.stderr, flush=True)
        self._label = ""

    def report(self, label: str, unit: str) -> Callable[[int, int], None]:
        """The same as a function of how many are done and how many there are, for work that reports so."""
        begun = False

        def so_far(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                self.start(label, total, unit)
                begun = True
            self.advance(done - self._done)

        return so_far

    def line(self, *, ended: bool = False) -> str:
        """How far it is, in words: ``preparing: 120 of 300 patients, 45.3 MB/s, 0:12 left``."""
        elapsed = max(self._clock() - self._began, 1e-9)
        parts = [self._label]
        if self._total is not None:
            parts[0] += f": {self._done} of {self._total} {self._unit}"
        if self._bytes:
            parts.append(f"{self._bytes / 1e6 / elapsed:.1f} MB/s")
        if ended:
            parts.append(f"took {_duration(elapsed)}")
        elif self._total and self._done:
            parts.append(f"{_duration(elapsed / self._done * max(0, self._total - self._done))} left")
        return ", ".join(parts)

    def _show(self) -> None:
        if not _is_terminal():
            print(self.line(), file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = _new_bar()
        bar, task = self._bar
        bar.update(task, total=self._total, completed=self._done, description=self.line())
        bar.start()
        bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _new_bar() -> tuple[Bar, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        BarColumn(bar_width=24),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    return bar, bar.add_task("")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
