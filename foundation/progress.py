"""The interface by which long work tells its progress, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener: one `start`, any number of `advance`, one `finish`, and so on for the next piece of work."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Begin a piece of work.

        Args:
            label: What is done, such as ``images``.
            total: How many there are to do; None where that is not known, and `advance` is not called.
            unit: What is counted, such as ``patients``.
        """
        ...

    def advance(self, n: int = 1, bytes: int = 0) -> None:
        """Report that `n` more are done, for which `bytes` bytes of source files were read."""
        ...

    def finish(self) -> None:
        """End the piece of work."""
        ...


class Silent:
    """A listener that shows nothing."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Ignore it."""

    def advance(self, n: int = 1, bytes: int = 0) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""


class Within:
    """Pieces of work that are parts of one piece: of each, what is done counts for the whole.

    Args:
        whole: The listener, told by somebody else when the whole begins and ends.
    """

    def __init__(self, whole: Progress) -> None:
        self._whole = whole

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Ignore it."""

    def advance(self, n: int = 1, bytes: int = 0) -> None:
        """Pass it on."""
        self._whole.advance(n, bytes)

    def finish(self) -> None:
        """Ignore it."""
