"""Resuming a fine-tuning run: which methods of which folds are done and whole, and whether the run is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.files.identity import refuse_another
from foundation.files.lock import WORKING
from foundation.files.whole import write_json

DONE, FOLDS = "done", "folds"
IDENTITY = f"{WORKING}/identity.json"


def seal(method: Path) -> None:
    """Note that a method of a fold is done, with the SHA-256 of each of its files."""
    files = {str(path.relative_to(method)): sha256_of(path) for path in sorted(method.rglob("*")) if path.is_file()}
    (method / DONE).write_text(json.dumps(files, indent=1), encoding="utf-8")


def is_done(method: Path) -> bool:
    """Whether a method is there as a whole."""
    return (method / DONE).is_file()


def count_done(folds: Path, names: Collection[str]) -> int:
    """Methods that are done, of some folds of a run."""
    return sum(method.parent.name in names for method in _methods(folds))


def begin_or_go_on(out: Path, identity: dict[str, str]) -> None:
    """Note what run this is; or go on with what is done, if it is of the same run and whole.

    Of a run that ended before anything was done nothing is kept, so that a mistake can be corrected and started again.

    Raises:
        CheckpointError: What is done belongs to another run, or was damaged.
    """
    path = out / IDENTITY
    if path.is_file() and _worth_keeping(out / FOLDS):
        refuse_another(read_json(path), identity, out)
        _refuse_damaged(_methods(out / FOLDS))
    else:
        shutil.rmtree(out / FOLDS, ignore_errors=True)
    write_json(path, identity)


def join_in(out: Path, identity: dict[str, str], folds: Collection[str]) -> None:
    """As `begin_or_go_on`, for some folds, while other processes may be at work on others.

    So nothing is removed, and a run that ended before anything was done is refused too where it was another one.

    Raises:
        CheckpointError: What is there belongs to another run, or what is done of these folds was damaged.
    """
    path = out / IDENTITY
    if path.is_file():
        refuse_another(read_json(path), identity, out)
        _refuse_damaged(method for method in _methods(out / FOLDS) if method.parent.name in folds)
    else:
        write_json(path, identity)


def add_seconds(out: Path, part: str, seconds: float) -> float:
    """Note the time that a process spent on its part of a run; returns that of all parts so far."""
    folder = out / WORKING / "seconds"
    folder.mkdir(exist_ok=True)
    path = folder / f"{part}.json"
    write_json(path, seconds + (read_json(path) if path.is_file() else 0.0))
    return sum(read_json(each) for each in sorted(folder.glob("*.json")))


def read_json(path: Path) -> Any:
    """A file of the run's own.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError("is damaged", where=str(path), fix="start the run in a new folder") from None


def _methods(folds: Path) -> list[Path]:
    """Those that are done."""
    return sorted(seal.parent for seal in folds.glob(f"[!.]*/[!.]*/{DONE}"))


def _worth_keeping(folds: Path) -> bool:
    """Whether a method is done, or pretraining for a fold has come to a checkpoint or its end."""
    return bool(
        _methods(folds) or list(folds.glob("*/pretrained/checkpoints/*")) or list(folds.glob("*/pretrained/model"))
    )


def _refuse_damaged(methods: Iterable[Path]) -> None:
    for method in methods:
        for name, known in read_json(method / DONE).items():
            if not (method / name).is_file() or sha256_of(method / name) != known:
                raise CheckpointError(
                    "was lost or changed since this run made it",
                    where=str(method / name),
                    fix=f"remove the folder {method} to have it made again",
                )
