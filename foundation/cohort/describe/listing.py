"""Every file below a folder, listed once; whoever can say what a file is takes it from the list."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from foundation.errors import DataError
from foundation.progress import Progress

BESIDE = {".ds_store", "thumbs.db", "desktop.ini", "autorun.inf"}
"""Files that operating systems leave in folders."""

PROGRESS_FILES = 1000


class Listing:
    """The files of a folder by their path below it.

    Args:
        folder: To list, with all folders below it.
        progress: Told how many files are found so far.

    Attributes:
        sizes: Path below the folder to its bytes, sorted; files of operating systems are left out.
        beside: How many files of operating systems there are.
        closed: Folders that may not be listed.
        links: Links to folders, which are not followed, and links to nothing.
        taken: Files that somebody has placed, or said why not.

    Raises:
        DataError: It is no folder, or holds no file.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "no such folder"
            raise DataError(what, where=str(folder), fix="name the folder that holds the source files")
        self.folder = folder
        self.beside = 0
        self.closed: list[str] = []
        self.links: list[str] = []
        self.taken: set[str] = set()
        progress.start("listing files", None, "files")
        found: dict[str, int] = {}
        waiting = [""]
        while waiting:
            self._list(waiting.pop(), found, waiting, progress)
        progress.finish()
        self.sizes = dict(sorted(found.items()))
        if not self.sizes:
            raise DataError("holds no file", where=str(folder), fix="name the folder that holds the source files")

    def _list(self, inside: str, found: dict[str, int], waiting: list[str], progress: Progress) -> None:
        """Add the files of one folder to `found` and its folders to `waiting`; what vanishes meanwhile is not there."""
        try:
            entries = list(os.scandir(self.folder / inside))
        except PermissionError:
            self.closed.append(inside or ".")
            return
        except FileNotFoundError:
            return
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            elif entry.name.startswith(".") or entry.name.lower() in BESIDE:
                self.beside += 1
            elif entry.is_file():
                with suppress(FileNotFoundError):
                    found[name] = entry.stat().st_size
                if len(found) % PROGRESS_FILES == 0:
                    progress.advance(PROGRESS_FILES)
            else:
                self.links.append(name)

    def path(self, name: str) -> Path:
        """Where a listed file is."""
        return self.folder / name

    def left(self, *endings: str) -> list[str]:
        """Files that nobody has taken yet, of these endings (any where none is given), sorted."""
        return [
            name for name in self.sizes if name not in self.taken and (not endings or name.lower().endswith(endings))
        ]

    def take(self, names: Iterable[str]) -> None:
        """Say that these files are spoken for."""
        self.taken.update(names)
