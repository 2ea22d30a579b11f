"""hf://organisation/name@revision in the place of a folder: downloaded into the hub's cache, and verified."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import CheckpointError, ConfigError
from foundation.hub.calls import patiently
from foundation.hub.published import FILE, Published
from foundation.urls import is_url

SCHEME = "hf://"

PATTERN = re.compile(
    r"hf://(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.-]+))?(?:/(?P<inside>[\w./-]+))?"
)


@dataclass(frozen=True)
class Address:
    """A repository on a model hub.

    Attributes:
        repository: As ``organisation/name``.
        revision: A tag, branch or commit; empty for the default branch.
        inside: A folder in it; empty for all of it.
    """

    repository: str
    revision: str = ""
    inside: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``hf://organisation/name@revision/folder``.

        Raises:
            ConfigError: It is none.
        """
        found = PATTERN.fullmatch(text.rstrip("/"))
        if found is None or ".." in text:
            fix = "write hf://organisation/name, or with @revision behind it"
            raise ConfigError("is no address of a model hub", where=text, fix=fix)
        return cls(found["repository"], found["revision"] or "", found["inside"] or "")

    def __str__(self) -> str:
        revision, inside = f"@{self.revision}" if self.revision else "", f"/{self.inside}" if self.inside else ""
        return f"{SCHEME}{self.repository}{revision}{inside}"


def is_address(place: object) -> bool:
    """Whether a place is on a model hub."""
    return str(place).startswith(SCHEME)


def local(place: str | Path) -> Path:
    """The folder of a place: itself, or what was downloaded of a hub; a revision that is in the cache needs no network.

    Raises:
        ConfigError: It is a URL but no address of a hub; or there is no such repository or revision, or no right to
            read it.
        CheckpointError: What is there is not what was published.
        StoreError: The hub cannot be reached and the cache has nothing, or it keeps failing.
    """
    if not is_url(place):
        return Path(place)
    address = Address.parse(str(place))
    return _downloaded(address) / address.inside


def trained(place: str | Path) -> Path:
    """As `local`, of something that was trained.

    Raises:
        CheckpointError: There is no such folder.
    """
    folder = local(place)
    if not folder.is_dir():
        fix = "name the folder of a run or of a model, or hf://organisation/name@revision"
        raise CheckpointError("no such folder", where=str(place), fix=fix)
    return folder


def pinned(place: str | Path) -> str | Path:
    """An address with the commit that its revision is now; anything else as it is."""
    if not is_address(place):
        return place
    address = Address.parse(str(place))
    # A folder of the cache is called like the commit.
    return str(Address(address.repository, _downloaded(address).name, address.inside))


def _downloaded(address: Address) -> Path:
    from huggingface_hub import snapshot_download

    where = str(address)
    with patiently(where) as call:
        folder = Path(call(snapshot_download, address.repository, revision=address.revision or None))
    if (folder / FILE).is_file():
        Published.verify(folder)
    return folder
