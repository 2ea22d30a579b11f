"""A folder of a document and a file of arrays, each known by its hash: nothing that was changed since is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from foundation.config import Config
from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of


class Sealed(Config):
    """What such a document says of itself.

    Attributes:
        tensors: SHA-256 of the file of arrays.
        sha256: Of all the rest of the document.
    """

    tensors: str
    sha256: str = ""

    def hash(self) -> str:
        """What `sha256` has to be."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the document with its hash."""
        sealed = self.model_copy(update={"sha256": self.hash()})
        path.write_text(sealed.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path, tensors: Path, *, of: str, fix: str) -> Self:
        """What a document says, once it and the file of arrays are found to be those that were written.

        Args:
            path: Of the document.
            tensors: Of the file of arrays, in the same folder.
            of: What a folder without one of them is none of, such as ``a linear model``.
            fix: What to do then.

        Raises:
            CheckpointError: One of them is missing or damaged, or of another version.
        """
        folder = str(path.parent)
        for needed in (path, tensors):
            if not needed.is_file():
                raise CheckpointError(f"is no folder of {of}: it has no {needed.name}", where=folder, fix=fix)
        try:
            document = cls.model_validate_json(path.read_bytes())
        except ValidationError:
            raise CheckpointError(
                f"{path.name} is damaged, of another version, or of no {of.partition(' ')[2]}",
                where=folder,
                fix="copy the folder again, or use the version of chiasma that wrote it",
            ) from None
        hashes = {path: (document.hash(), document.sha256), tensors: (sha256_of(tensors), document.tensors)}
        for file, (found, known) in hashes.items():
            if found != known:
                raise CheckpointError(f"{file.name} is damaged", where=folder, fix="copy the folder again")
        return document
