"""chiasma.json of a published folder: what wrote it, and each of its files by its hash."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from foundation.config import Config
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of

FILE = "chiasma.json"
PACKAGES = ("chiasma", "torch", "transformers", "timm", "peft", "safetensors")

AGAIN = "download the folder again"

HUB_FILES = (".gitattributes",)
"""What a hub adds by itself."""


class File(Config):
    """A file of the folder."""

    sha256: str
    size: int


class Published(Config):
    """The whole of chiasma.json.

    Attributes:
        schema_version: Of this file and of the layout of the folder.
        kind: ``fine-tuned``, what predicts; or ``pretrained``, what embeds.
        licence: SPDX identifier.
        versions: Package to the version that wrote the folder.
        files: Path in the folder to what it has to be; all but this file itself.
    """

    schema_version: Literal[1] = 1
    kind: Literal["fine-tuned", "pretrained"]
    licence: str
    versions: dict[str, str]
    files: dict[str, File]

    @classmethod
    def seal(cls, folder: Path, kind: Literal["fine-tuned", "pretrained"], licence: str) -> Published:
        """Write chiasma.json into a folder that is complete."""
        files = {name: File(sha256=sha256_of(path), size=path.stat().st_size) for name, path in _files(folder)}
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        published = cls(kind=kind, licence=licence, versions=versions, files=files)
        (folder / FILE).write_text(published.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return published

    @classmethod
    def read(cls, folder: Path) -> Published:
        """Read chiasma.json.

        Raises:
            CheckpointError: It is not there, or damaged.
        """
        try:
            return cls.model_validate_json((folder / FILE).read_bytes())
        except (OSError, ValidationError):
            fix = f"{AGAIN}, or use the version of chiasma that wrote it"
            raise CheckpointError(f"has no {FILE}, or one that is damaged", where=str(folder), fix=fix) from None

    @classmethod
    def verify(cls, folder: Path) -> Published:
        """Read chiasma.json and compare every file with it.

        Raises:
            CheckpointError: It is damaged; or a file is missing, changed, or not one of them.
        """
        published, where, again = cls.read(folder), str(folder), AGAIN
        here = dict(_files(folder))
        for name, known in published.files.items():
            if name not in here:
                raise CheckpointError(f"has no {name}", where=where, fix=again)
            if here[name].stat().st_size != known.size or sha256_of(here[name]) != known.sha256:
                raise CheckpointError(f"{name} is not what was published", where=where, fix=again)
        if strange := sorted(here.keys() - published.files.keys()):
            raise CheckpointError(f"{strange[0]} was not published with it", where=where, fix="remove that file")
        return published


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Path in the folder, as on any system, to each file but chiasma.json and those of a hub."""
    found = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]
    hidden = (FILE, *HUB_FILES)
    return [(name, path) for name, path in found if name not in hidden and not name.startswith(".cache/")]
