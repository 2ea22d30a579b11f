"""A table written part by part: memory is bounded, a stopped call goes on, and the file appears when it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import CheckpointError, ConfigError, writing
from foundation.files.lock import held
from foundation.files.whole import make_folder, write_json

if TYPE_CHECKING:
    import pandas as pd

PART = 1024
"""Rows of a part."""

IDENTITY = "identity.json"

MADE_FROM = b"chiasma"
"""Key of a Parquet file's metadata under which the identity of a table stands."""


def write_table(
    path: Path,
    rows: np.ndarray,
    make: Callable[[np.ndarray], pd.DataFrame],
    identity: Mapping[str, str],
    *,
    doing: str,
    skipped: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a Parquet file of rows that are made part by part.

    Args:
        path: The file; replaced where it is there and was made from the same.
        rows: That are asked for, in order.
        make: Gives the table of some of them; what it gives depends on nothing but these.
        identity: What the rows are made from, as hashes; parts of an earlier call are taken over if it is the same.
        doing: What another process does that writes the same file, such as ``is being predicted``.
        skipped: Told how many rows an earlier call had made.

    Raises:
        ConfigError: The file cannot be written there, or another one is there.
        DataError: Another process writes it.
        CheckpointError: A part of an earlier call is damaged.
    """
    refuse_foreign(path)
    if path.exists() and _made_from(path) != dict(identity):
        what = "is there already, and was made from another cohort or model, or with another option"
        raise ConfigError(what, where=str(path), fix="name another file, or remove this one")
    parts = path.with_name(f".{path.name}.parts")
    with writing(path):
        make_folder(parts, named=path.parent, fix="write to another folder")
        with held(path, working=parts, doing=doing, fix="wait for it, or write to another file"):
            _take_over(parts, identity)
            starts = range(0, max(1, len(rows)), PART)
            for number, start in enumerate(starts):
                part, wanted = parts / f"{number:06d}.parquet", rows[start : start + PART]
                if part.is_file():
                    skipped(len(wanted))
                    continue
                partial = part.with_suffix(".partial")
                make(wanted).to_parquet(partial, index=False)
                partial.replace(part)
            _join([parts / f"{number:06d}.parquet" for number in range(len(starts))], path, identity)
        shutil.rmtree(parts)


def refuse_foreign(path: Path) -> None:
    """Refuse a place where no table can be written without losing something else.

    Raises:
        ConfigError: It is a folder, has another ending, or holds what `write_table` has not written.
    """
    if path.is_dir():
        raise ConfigError("is a folder, not a file", where=str(path), fix="name a file, such as predictions.parquet")
    if path.suffix != ".parquet":
        raise ConfigError("is not called as a Parquet file is", where=str(path), fix=f"name it {path.stem}.parquet")
    if path.exists() and _made_from(path) is None:
        what = "is there already, and is no table that this command has written"
        raise ConfigError(what, where=str(path), fix="name another file, or move this one away")


def _made_from(path: Path) -> dict[str, str] | None:
    """The identity of a table; None where a file is none."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = (pq.read_schema(path).metadata or {}).get(MADE_FROM)
    except (OSError, pa.ArrowInvalid):
        return None
    return json.loads(found) if found is not None else None


def _take_over(parts: Path, identity: Mapping[str, str]) -> None:
    """Keep parts of the same table, and remove those of another."""
    import json

    known = parts / IDENTITY
    try:
        theirs = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else None
    except ValueError:
        theirs = None
    if theirs != dict(identity):
        for old in parts.glob("*.p*"):
            old.unlink()
        write_json(known, dict(identity))


def _join(parts: list[Path], path: Path, identity: Mapping[str, str]) -> None:
    """One file of several, row group by row group, with what it was made from."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(f".{path.name}.partial")
    try:
        schema = pq.read_schema(parts[0])
        schema = schema.with_metadata({**(schema.metadata or {}), MADE_FROM: json.dumps(dict(identity)).encode()})
        with pq.ParquetWriter(partial, schema) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).cast(schema))
    except pa.ArrowInvalid as error:
        raise CheckpointError(
            f"a part of it is damaged: {' '.join(str(error).split())[:200]}",
            where=str(parts[0].parent),
            fix="remove this folder and start again",
        ) from None
    partial.replace(path)
