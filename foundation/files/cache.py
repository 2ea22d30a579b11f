"""A folder of fetched files with a bound on its size, shared by all processes of a machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import Field

from foundation.config import Config, YamlPath
from foundation.errors import ConfigError, writing
from foundation.files.whole import make_folder

PARTIAL = ".partial"
LOCKS = ".locks"
WAIT_FOR_ROOM = 120.0
GIGABYTE = 10**9


class CacheConfig(Config):
    """Where files of a cohort at a URL are kept."""

    folder: YamlPath | None = Field(
        default=None, description="On a disk of this machine; by default chiasma/ in the user's cache folder."
    )
    gigabytes: float = Field(default=50, gt=0, description="What it may hold; least recently used files go first.")

    def open(self) -> Cache:
        """The cache."""
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Cache(self.folder or Path(base) / "chiasma", int(self.gigabytes * GIGABYTE))


class Held:
    """A file that stays where it is until `close`, or until nobody has this object any more.

    Args:
        path: The file.
        descriptor: Of the file, open; None for one that nobody removes.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor

    def lock(self) -> bool:
        """Whether the file was still there to be held."""
        assert self._descriptor is not None
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        there = os.fstat(self._descriptor).st_nlink > 0
        if not there:
            self.close()
        return there

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


class _Entry(NamedTuple):
    """A file in the cache; `size` of one that is being fetched is what it will have."""

    used: float
    size: int
    path: Path


class Cache:
    """Files by the hash of what is in them: whole or not there, and never more of them than the bound.

    Locks are those of the operating system, so that a process that was killed holds nothing. A file that somebody
    holds is not removed, since its place on the disk would not be free.

    Args:
        folder: Made if it is not there.
        size: Bytes that the files may have together.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        with writing(folder):
            make_folder(folder / LOCKS, named=folder, fix="name another `cache.folder`")

    def __reduce__(self) -> tuple:
        return (Cache, (self.folder, self.size))

    def ensure(self, key: str, size: int, fetch: Callable[[Path], None]) -> Path:
        """Have a file here.

        Args:
            key: Its SHA-256.
            size: Its bytes.
            fetch: Writes it to a path, and raises where it is not whole.

        Returns:
            Where it is, until somebody needs the room: see `hold`.

        Raises:
            ConfigError: The bound is too small for it and what else is in use.
            WriteError: The disk is full or read-only.
        """
        path = self.folder / key
        if not _is_whole(path, size):
            # Whoever comes second waits here for the first.
            with self._locked(key[:2]):
                if not _is_whole(path, size):
                    self._fetch(path, size, fetch)
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
        return path

    def hold(self, key: str, size: int, fetch: Callable[[Path], None]) -> Held:
        """Have a file here, and keep it here until it is let go."""
        while True:
            path = self.ensure(key, size, fetch)
            try:
                held = Held(path, os.open(path, os.O_RDONLY))
            except FileNotFoundError:
                continue  # Removed in this very moment.
            if held.lock():
                return held

    def _fetch(self, path: Path, size: int, fetch: Callable[[Path], None]) -> None:
        partial = path.with_name(f"{path.name}.{size}{PARTIAL}")
        with writing(self.folder, then="start the same command again"):
            self._make_room(size, partial)
            try:
                fetch(partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def _make_room(self, size: int, partial: Path) -> None:
        """Remove what was not used for longest, and reserve the place of a file by its empty beginning."""
        until = time.monotonic() + WAIT_FOR_ROOM
        while size <= self.size:
            with self._locked("room"):
                free = self.size - sum(entry.size for entry in self._entries(partial))
                for entry in sorted(self._entries(partial)):
                    if free >= size:
                        break
                    free += entry.size if self._removed(entry.path) else 0
                if free >= size:
                    partial.touch()
                    return
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        raise ConfigError(
            f"{self.size / GIGABYTE:g} GB has no room for a file of {size / GIGABYTE:.3g} GB beside those in use",
            where=f"cache.gigabytes, of {self.folder}",
            fix="raise it, or lower order.open_shards",
        )

    def _entries(self, apart_from: Path) -> list[_Entry]:
        entries = []
        for path in self.folder.iterdir():
            if path.name == LOCKS or path == apart_from:
                continue
            if path.name.endswith(PARTIAL):
                # It may come whole, and lose this name, in this very moment: its place is taken all the same.
                entries.append(_Entry(0.0, int(path.name.split(".")[1]), path))
                continue
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                entries.append(_Entry(found.st_mtime, found.st_size, path))
        return entries

    def _removed(self, path: Path) -> bool:
        """Remove a file that nobody holds, or the beginning of one that nobody fetches any more."""
        if path.name.endswith(PARTIAL):
            with self._locked(path.name[:2], wait=False) as free:
                if free:
                    with contextlib.suppress(FileNotFoundError):  # It has come whole, and is no longer called so.
                        path.unlink()
                        return True
                return False
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            if not _try_lock(stream):
                return False
            path.unlink(missing_ok=True)
        return True

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        with (self.folder / LOCKS / name).open("ab") as stream:
            if wait:
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield wait or _try_lock(stream)


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _try_lock(stream: IO[bytes]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
