"""Hashes of files: SHA-256 of what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from foundation.errors import DataError, nearest


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, read a piece at a time.

    Raises:
        DataError: It is not there, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("no such file", where=str(path), fix=nearest(path.name, siblings)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=str(path), fix="check the file and its permissions") from None
