"""A folder claimed for one preparation: nothing else in it, nobody else at work in it, one message when it fails."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from foundation.cohort.manifest import FILE, Manifest
from foundation.errors import ConfigError, DataError, WriteError

WORKING = ".prepare"
"""Folder inside the cohort that holds what an unfinished preparation needs to go on; gone at the end."""

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


@contextlib.contextmanager
def claimed(out: Path, name: str) -> Iterator[Path]:
    """Hold a folder for the cohort `name` while it is prepared.

    Yields:
        The working folder inside it.

    Raises:
        ConfigError: A file stands in the way.
        DataError: The folder holds something else, or another process is at work in it.
        WriteError: The disk is full or read-only.
    """
    import filelock

    with _one_message(out):
        _make(out)
        _refuse_what_is_not_ours(out, name)
        working = out / WORKING
        working.mkdir(exist_ok=True)
        lock = filelock.FileLock(working / "lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise DataError(
                f"is being prepared by process {_holder(working)}",
                where=str(out),
                fix="wait for it, or name another folder with --out",
            ) from None
        try:
            (working / "process").write_text(str(os.getpid()), encoding="utf-8")
            yield working
        finally:
            _leave(working)
            lock.release()
            _remove_if_empty(working)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        blocking = next(path for path in (out, *out.parents) if path.exists())
        raise ConfigError(
            "is a file, not a folder", where=str(blocking), fix="name another folder with --out"
        ) from None


def _refuse_what_is_not_ours(out: Path, name: str) -> None:
    if (out / FILE).is_file():
        other = Manifest.read(out).name
        if other != name:
            raise DataError(
                f"holds another cohort, '{other}'", where=str(out), fix=f"give '{name}' a folder of its own with --out"
            )
    elif not (out / WORKING).is_dir() and any(out.iterdir()):
        raise DataError(
            "is not empty and holds no cohort", where=str(out), fix="name a new or an empty folder with --out"
        )


def _holder(working: Path) -> str:
    try:
        return (working / "process").read_text(encoding="utf-8")
    except OSError:
        return "unknown"


def _leave(working: Path) -> None:
    (working / "process").unlink(missing_ok=True)


def _remove_if_empty(working: Path) -> None:
    """A preparation that failed before it had anything to keep leaves nothing behind."""
    if not working.is_dir():
        return
    if all(path.is_dir() or path.name == "lock" for path in working.rglob("*")):
        (working / "lock").unlink(missing_ok=True)
        for folder in sorted((path for path in working.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        working.rmdir()


@contextlib.contextmanager
def _one_message(out: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one message."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise WriteError(
            f"cannot write: {REFUSALS[error.errno]}",
            where=str(error.filename or out),
            fix="make room or correct the permissions, then run the same command: what is finished is kept",
        ) from error
