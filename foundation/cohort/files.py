"""The files of a prepared cohort: in a folder, or at a URL and then fetched into a cache as they are needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from foundation.cohort.manifest import FILE, Shard
from foundation.errors import DataError
from foundation.files.cache import Cache, CacheConfig, Held
from foundation.files.store import Store
from foundation.urls import is_url, refuse_secrets

RECORDS = "records"


class CohortFiles(Protocol):
    """Where the files of a cohort are.

    Attributes:
        remote: Whether they are fetched, which takes time.
    """

    remote: bool

    def read(self, name: str, entry: Shard | None = None) -> bytes:
        """What is in a small file; `entry` is what cohort.json says of it."""
        ...

    def hold(self, name: str, entry: Shard | None = None) -> Held:
        """A file on a local disk, there until it is let go."""
        ...

    def ensure(self, name: str, entry: Shard | None = None) -> None:
        """Have a file on a local disk, for the time being."""
        ...

    def place(self, name: str) -> str:
        """Where a file is, for messages."""
        ...

    def most_open(self, largest: int) -> int:
        """How many files of at most this size one process may hold."""
        ...


class LocalFiles:
    """The files of a cohort in a folder."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str, entry: Shard | None = None) -> bytes:
        """See `CohortFiles`."""
        path = self.folder / name
        try:
            text = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error}", where=str(path), fix="prepare the cohort again") from None
        if entry is not None and hashlib.sha256(text).hexdigest() != entry.sha256:
            fix = "copy the cohort again, or prepare it again into an empty folder"
            raise DataError("is damaged: it is not what was prepared", where=str(path), fix=fix)
        return text

    def hold(self, name: str, entry: Shard | None = None) -> Held:
        """See `CohortFiles`."""
        return Held(self.folder / name)

    def ensure(self, name: str, entry: Shard | None = None) -> None:
        """See `CohortFiles`."""

    def place(self, name: str) -> str:
        """See `CohortFiles`."""
        return str(self.folder / name)

    def most_open(self, largest: int) -> int:
        """As many as one wants: what bounds them is the number of mappings of a process, 65,530 on Linux."""
        return 16384


class RemoteFiles:
    """The files of a cohort at a URL; what is fetched is known by its hash in cohort.json.

    Args:
        store: The URL.
        cache: Where they are kept.
        sharing: How many cohorts a process reads through it.
    """

    remote = True

    def __init__(self, store: Store, cache: Cache, sharing: int = 1) -> None:
        self.store = store
        self.cache = cache
        self.sharing = sharing

    def read(self, name: str, entry: Shard | None = None) -> bytes:
        """See `CohortFiles`; cohort.json, of which nothing is known yet, is asked for each time."""
        if entry is None and name == FILE:
            return self.store.read(name)
        held = self.hold(name, entry)
        try:
            return held.path.read_bytes()
        finally:
            held.close()

    def hold(self, name: str, entry: Shard | None = None) -> Held:
        """See `CohortFiles`."""
        known = self._known(name, entry)
        return self.cache.hold(known.sha256, known.bytes, lambda to: self._fetch(name, known, to))

    def ensure(self, name: str, entry: Shard | None = None) -> None:
        """See `CohortFiles`."""
        known = self._known(name, entry)
        self.cache.ensure(known.sha256, known.bytes, lambda to: self._fetch(name, known, to))

    def _fetch(self, name: str, entry: Shard, to: Path) -> None:
        self.store.fetch(name, to, entry.bytes, entry.sha256)

    def _known(self, name: str, entry: Shard | None) -> Shard:
        if entry is None:
            raise DataError(
                f"cohort.json does not know {name}: an earlier version of chiasma prepared this cohort",
                where=self.store.url,
                fix="prepare the cohort again with this version, and copy it there",
            )
        return entry

    def place(self, name: str) -> str:
        """See `CohortFiles`."""
        return self.store.place(name)

    def most_open(self, largest: int) -> int:
        """A quarter of the cache for all cohorts: processes of a machine read the same files at about the same time."""
        return min(max(1, self.cache.size // (4 * self.sharing * max(1, largest))), 256)


def files_at(place: Path | str, cache: CacheConfig | None, sharing: int = 1) -> CohortFiles:
    """The files of a cohort.

    Args:
        place: Its folder or URL.
        cache: For what is fetched from a URL.
        sharing: How many cohorts a process reads through it.

    Raises:
        ConfigError: The URL holds a secret, or the cache cannot be made.
    """
    if not isinstance(place, str) or not is_url(place):
        return LocalFiles(Path(place))
    refuse_secrets(place)
    return RemoteFiles(Store(place), (cache or CacheConfig()).open(), sharing)
