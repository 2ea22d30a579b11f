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
        path: The file; replaced where it is there.
        rows: That are asked for, in order.
        make: Gives the table of some of them; what it gives depends on nothing but these.
        identity: What the rows are made from, as hashes; parts of an earlier call are taken over if it is the same.
        doing: What another process does that writes the same file, such as ``is being predicted``.
        skipped: Told how many rows an earlier call had made.

    Raises:
        ConfigError: The file cannot be written there.
        DataError: Another process writes it.
        CheckpointError: A part of an earlier call is damaged.
    """
    if path.is_dir():
        raise ConfigError("is a folder, not a file", where=str(path), fix="name a file, such as predictions.parquet")
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
            _join([parts / f"{number:06d}.parquet" for number in range(len(starts))], path)
        shutil.rmtree(parts)


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


def _join(parts: list[Path], path: Path) -> None:
    """One file of several, row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(f".{path.name}.partial")
    try:
        schema = pq.read_schema(parts[0])
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
