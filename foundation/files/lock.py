"""A folder that one process at a time may work in."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from foundation.errors import ConfigError, DataError, writing
from foundation.files.whole import make_folder

WORKING = ".run"
"""Folder inside a run folder, for what only the run itself reads."""

FIX = "wait for it, or give this run another `out`"
LOCK = "lock"
HOLDER = "process"


@contextlib.contextmanager
def held(folder: Path, *, working: Path, doing: str, fix: str, patience: float = 0) -> Iterator[None]:
    """Hold a folder for this process.

    The lock is that of the operating system, so that a process that was killed holds nothing.

    Args:
        folder: For the message.
        working: Folder inside it that keeps the lock and the number of the process.
        doing: What the other process does with it, such as ``is being prepared``.
        fix: What to do where there is one.
        patience: Seconds to wait for a process that holds it for a moment.

    Raises:
        DataError: Another process holds it.
    """
    import filelock

    lock = filelock.FileLock(working / LOCK, timeout=patience)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise DataError(f"{doing} by process {_holder(working)}", where=str(folder), fix=fix) from None
    try:
        (working / HOLDER).write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        (working / HOLDER).unlink(missing_ok=True)
        lock.release()


def refuse_foreign(out: Path, mark: str) -> None:
    """Refuse a folder that holds something and is no run of this kind, before anything is written there.

    Args:
        out: The run folder, which need not be there.
        mark: File that every such run leaves in its folder when it begins.

    Raises:
        ConfigError: So it is.
    """
    if out.is_dir() and not (out / mark).is_file() and any(path.name != WORKING for path in out.iterdir()):
        raise ConfigError(
            "is not empty and holds no run that can be resumed",
            where=f"out: {out}",
            fix=f"name a new folder; if it is a copy of a run, copy its {mark} too",
        )


@contextlib.contextmanager
def claimed_run(out: Path, *, doing: str, patience: float = 0) -> Iterator[None]:
    """Hold a run folder, made if it is not there.

    Args:
        out: The folder.
        doing: See `held`.
        patience: See `held`.

    Raises:
        ConfigError: It cannot be made.
        DataError: Another process holds it.
    """
    working = out / WORKING
    with writing(out):
        make_folder(working, named=out, fix="correct `out`")
    with held(out, working=working, doing=doing, fix=FIX, patience=patience):
        yield


@contextlib.contextmanager
def claimed_part(out: Path, part: str, *, doing: str) -> Iterator[None]:
    """Hold a part of a run folder, beside processes that hold other parts.

    Who holds the whole run and means to work in all of it holds its parts too.

    Args:
        out: The folder.
        part: Of it, as a path relative to it.
        doing: See `held`.

    Raises:
        DataError: Another process holds it.
    """
    working = out / WORKING / part
    with writing(out):
        working.mkdir(parents=True, exist_ok=True)
    with held(out / part, working=working, doing=doing, fix=FIX):
        yield


def _holder(working: Path) -> str:
    try:
        return (working / HOLDER).read_text(encoding="utf-8")
    except OSError:
        return "unknown"
