"""A folder that one process at a time may work in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from foundation.errors import DataError

LOCK = "lock"
HOLDER = "process"


@contextlib.contextmanager
def held(folder: Path, *, working: Path, doing: str, fix: str) -> Iterator[None]:
    """Hold a folder for this process.

    The lock is that of the operating system, so that a process that was killed holds nothing.

    Args:
        folder: For the message.
        working: Folder inside it that keeps the lock and the number of the process.
        doing: What the other process does with it, such as ``is being prepared``.
        fix: What to do where there is one.

    Raises:
        DataError: Another process holds it.
    """
    import filelock

    lock = filelock.FileLock(working / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise DataError(f"{doing} by process {_holder(working)}", where=str(folder), fix=fix) from None
    try:
        (working / HOLDER).write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        (working / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(working: Path) -> str:
    try:
        return (working / HOLDER).read_text(encoding="utf-8")
    except OSError:
        return "unknown"
