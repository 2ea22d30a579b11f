"""index.arrow: every small column of a cohort in one file, so that a run begins without opening a shard.

Columns are those of the records (`records.py`) without voxels, affines and values of omics; of an omics modality
``omics/NAME`` is here the number of features that were observed (int32). Null means absent, as there. The metadata of
the schema names the shards in their order, with their numbers of records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from foundation.cohort.files import CohortFiles
from foundation.cohort.manifest import Shard
from foundation.cohort.open_shards import OpenShard, OpenShards, is_large, view_lists
from foundation.errors import DataError
from foundation.files.cache import Held

FILE = "index.arrow"
SHARDS = b"chiasma shards"


@dataclass(frozen=True)
class Index:
    """The small columns of a cohort.

    Attributes:
        table: [N] rows.
        shards: Files of records to their numbers of records.
        counted: Whether ``omics/NAME`` are numbers of observed features; else they say only who has any values.
    """

    table: pa.Table
    shards: dict[str, int]
    counted: bool


def write_index_of(records: Path, names: Sequence[str]) -> Shard:
    """Write the index of finished shards beside their folder; the same bytes for the same shards.

    Returns:
        Its size and hash.
    """
    parts, lengths = [], {}
    for name in names:
        shard = OpenShard(Held(records / name))
        parts.append(_copy(_small(shard, counted=True)))
        lengths[name] = len(shard)
    return write_index(records.parent, pa.concat_tables(parts), lengths)


def write_index(folder: Path, table: pa.Table, shards: Mapping[str, int]) -> Shard:
    """Write the index of a cohort, whole or not at all.

    Args:
        folder: The cohort.
        table: Its small columns.
        shards: Files of records to their numbers of records.

    Returns:
        Its size and hash.
    """
    table = table.combine_chunks().replace_schema_metadata({SHARDS: json.dumps(dict(shards))})
    path = folder / FILE
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    partial.replace(path)
    return Shard.of(path)


def read_index(files: CohortFiles, entry: Shard | None) -> tuple[Index, Held]:
    """Map the index of a cohort, and hold its file.

    Raises:
        DataError: It is damaged.
    """
    held = files.hold(FILE, entry)
    try:
        with pa.memory_map(str(held.path)) as mapped, pa.ipc.open_file(mapped) as reader:
            table = reader.read_all()
        shards = json.loads(table.schema.metadata[SHARDS])
    except (OSError, pa.ArrowInvalid, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot be read: {' '.join(str(error).split())[:200]}",
            where=files.place(FILE),
            fix="prepare the cohort again, into an empty folder",
        ) from None
    return Index(table, shards, counted=True), held


def collect_index(shards: OpenShards) -> Index:
    """The index of a cohort that has no such file, from all of its shards."""
    opened = [shards.read(number) for number in range(len(shards))]
    lengths = dict(zip(shards.names, map(len, opened), strict=True))
    return Index(pa.concat_tables([_small(shard, counted=False) for shard in opened]).combine_chunks(), lengths, False)


def _copy(table: pa.Table) -> pa.Table:
    """A table that keeps no shard mapped, and no page of its omics in memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def _small(shard: OpenShard, *, counted: bool) -> pa.Table:
    columns = {}
    for name in shard.table.column_names:
        column = shard.table.column(name)
        if name.startswith("omics/"):
            columns[name] = _observed(column.chunks, counted)
        elif not is_large(name):
            columns[name] = column
    return pa.table(columns)


def _observed(chunks: Iterable[pa.FixedSizeListArray], counted: bool) -> pa.ChunkedArray:
    """Per record the number of values that are not NaN, null where absent; not counted, 0 instead."""
    counts = []
    for chunk in chunks:
        absent = chunk.is_null().to_numpy(zero_copy_only=False)
        count = np.zeros(len(chunk), dtype=np.int32)
        if counted:
            values = view_lists(chunk)
            for row in np.flatnonzero(~absent):
                count[row] = len(values[row]) - np.count_nonzero(np.isnan(values[row]))
        counts.append(pa.array(count, mask=absent))
    return pa.chunked_array(counts, type=pa.int32())
