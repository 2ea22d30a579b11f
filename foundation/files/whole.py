"""Files and folders that appear whole or not at all, and folders made where somebody asked for them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder` once it is whole, or is gone where filling it failed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
        os.rename(partial, folder)
        shutil.rmtree(old)
    else:
        os.rename(partial, folder)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def make_folder(folder: Path, *, named: Path, fix: str) -> None:
    """Make a folder to write to, with those above it.

    Args:
        folder: May be there already.
        named: The folder as the user named it, for the message.
        fix: What to do where it cannot be made.

    Raises:
        ConfigError: A file is in the way, or nothing may be written there.
        OSError: The disk is full or broken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        blocking = next((path for path in (named, *named.parents) if path.is_file()), None)
        if blocking is not None:
            raise ConfigError("is a file, not a folder", where=str(blocking), fix=fix) from None
        reason = "" if error.errno == errno.ENOENT else f": {(error.strerror or str(error)).lower()}"
        raise ConfigError(f"no folder can be made there{reason}", where=str(named), fix=fix) from None
    if not os.access(folder, os.W_OK):
        raise ConfigError("nothing may be written there", where=str(named), fix=fix)
