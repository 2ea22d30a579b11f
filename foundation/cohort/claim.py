"""A folder made and claimed for one preparation: nothing else in it, nobody else at work, one message on failure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from foundation.cohort.manifest import FILE, Manifest
from foundation.errors import DataError, writing
from foundation.files.lock import HOLDER, LOCK, held
from foundation.files.whole import make_folder

WORKING = ".prepare"
"""Folder inside the cohort that holds what an unfinished preparation needs to go on; gone at the end."""


@contextlib.contextmanager
def claimed_cohort(out: Path, name: str) -> Iterator[Path]:
    """Hold a folder for the cohort `name` while it is prepared.

    Yields:
        The working folder inside it.

    Raises:
        ConfigError: It cannot be made.
        DataError: The folder holds something else, or another process is at work in it.
        WriteError: The disk is full or read-only.
    """
    with writing(out, then="run the same command: what is finished is kept"):
        make_folder(out, named=out, fix="name another folder with --out")
        _refuse_what_is_not_ours(out, name)
        working = out / WORKING
        working.mkdir(exist_ok=True)
        fix = "wait for it, or name another folder with --out"
        with held(out, working=working, doing="is being prepared", fix=fix):
            try:
                yield working
            finally:
                _remove_if_empty(working)


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


def _remove_if_empty(working: Path) -> None:
    """A preparation that failed before it had anything to keep leaves nothing behind."""
    if not working.is_dir():
        return
    if all(path.is_dir() or path.name in (LOCK, HOLDER) for path in working.rglob("*")):
        for name in (LOCK, HOLDER):
            (working / name).unlink(missing_ok=True)
        for folder in sorted((path for path in working.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        working.rmdir()
