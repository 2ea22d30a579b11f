"""A record of a prepared cohort, its columns, and how records are written: Arrow shards, and an index of them.

A record is one patient at one time point. Columns: ``patient``, ``time_point``, ``site``, ``group``;
per image modality ``image/NAME/voxels`` (raw C-order bytes of [C, *shape]), ``image/NAME/channels``,
``image/NAME/statistics`` and ``image/NAME/affine`` (16 float64, row by row the 4 x 4 matrix from voxel indices
(i, j, k, 1) of the stored grid to millimetres of the scan's world, RAS+; null where the source says no place or
`spacing: untrue` distrusts it); per omics modality ``omics/NAME`` (float32, NaN where not measured); per endpoint
``endpoint/NAME`` or ``endpoint/NAME/time`` and ``endpoint/NAME/event``; per annotation ``annotation/NAME/regions``
(a plane of bits per region, [R, bytes], the voxels of the image's grid in C order, highest bit first, the last byte
filled up with zeros), ``annotation/NAME/annotated`` and ``annotation/NAME/kept``. Null means absent.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.cohort.manifest import Shard
from foundation.errors import DataError
from foundation.files.hashing import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

    from foundation.cohort.spec import CohortSpec

STATISTICS = ("low", "high", "mean", "std")
BATCH_BYTES = 64 * 2**20
AFFINE_NUMBERS = 16


@dataclass
class Image:
    """One image of one record.

    Attributes:
        voxels: [C, *shape].
        channels: [C] bool, whether it was acquired.
        statistics: [C, 4], see STATISTICS.
        affine: [4, 4] float64, voxel indices to millimetres of the scan's world (RAS+); the grid is that of the first
            channel acquired, and the others lie on it. None where it is not known.
    """

    voxels: np.ndarray
    channels: np.ndarray
    statistics: np.ndarray
    affine: np.ndarray | None = None


@dataclass
class Annotation:
    """Regions drawn on one image of one record.

    Attributes:
        regions: [R, *shape] bool, on the grid of the image as stored; regions may overlap.
        annotated: [R] bool, whether somebody looked for the region: only then does an empty one mean that it is not
            there.
        kept: [R] float32, share of the region's source voxels whose centre lies in the stored image, 0 where no stored
            voxel shows the region; NaN where the source has none of it.
    """

    regions: np.ndarray
    annotated: np.ndarray
    kept: np.ndarray


@dataclass
class Record:
    """One patient at one time point, as written; a modality that is missing from a dictionary is absent."""

    patient: str
    time_point: str = ""
    site: str | None = None
    group: str | None = None
    images: dict[str, Image] = field(default_factory=dict)
    omics: dict[str, np.ndarray] = field(default_factory=dict)
    endpoints: dict[str, float | int] = field(default_factory=dict)
    annotations: dict[str, Annotation] = field(default_factory=dict)

    def bytes(self) -> int:
        """Size of what is stored for it, roughly."""
        images = sum(i.voxels.nbytes for i in self.images.values()) + sum(v.nbytes for v in self.omics.values())
        return images + sum(a.regions.size // 8 for a in self.annotations.values())


def record_features(spec: CohortSpec, features: Mapping[str, Sequence[str]]) -> Any:
    """The `datasets.Features` of a cohort's records."""
    from datasets import Features, List, Value

    columns: dict[str, Any] = {name: Value("string") for name in ("patient", "time_point", "site", "group")}
    for name, image in spec.images().items():
        count = len(image.channels)
        columns[f"image/{name}/voxels"] = Value("large_binary")
        columns[f"image/{name}/channels"] = List(Value("bool"), length=count)
        columns[f"image/{name}/statistics"] = List(Value("float32"), length=count * len(STATISTICS))
        columns[f"image/{name}/affine"] = List(Value("float64"), length=AFFINE_NUMBERS)
    for name in spec.omics():
        columns[f"omics/{name}"] = List(Value("float32"), length=len(features[name]))
    for name, endpoint in spec.endpoints.items():
        if endpoint.kind == "survival":
            columns[f"endpoint/{name}/time"] = Value("float64")
            columns[f"endpoint/{name}/event"] = Value("int8")
        else:
            columns[f"endpoint/{name}"] = Value("float64" if endpoint.kind == "regression" else "int16")
    for name, annotation in spec.annotations.items():
        columns[f"annotation/{name}/regions"] = Value("large_binary")
        columns[f"annotation/{name}/annotated"] = List(Value("bool"), length=len(annotation.regions))
        columns[f"annotation/{name}/kept"] = List(Value("float32"), length=len(annotation.regions))
    return Features(columns)


def write_shard(path: Path, schema: pa.Schema, records: Iterable[Record]) -> Shard:
    """Write records to one Arrow stream file; the file appears only when it is whole.

    Returns:
        Its size and hash.
    """
    import pyarrow as pa

    # A process that was left behind by a killed run must not share a half-written file with its successor.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in _batches(records, schema):
                writer.write_batch(batch)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        written = Shard(bytes=partial.stat().st_size, sha256=sha256_of(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _batches(records: Iterable[Record], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Records gathered until they weigh BATCH_BYTES, so that memory depends on neither patients nor image size."""
    waiting: list[Record] = []
    size = 0
    for record in records:
        waiting.append(record)
        size += record.bytes()
        if size >= BATCH_BYTES:
            yield _to_batch(waiting, schema)
            waiting, size = [], 0
    if waiting:
        yield _to_batch(waiting, schema)


def _to_batch(records: list[Record], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([_to_column(field, records) for field in schema], schema=schema)


def _to_column(column: pa.Field, records: list[Record]) -> pa.Array:
    import pyarrow as pa

    kind, _, rest = column.name.partition("/")
    if kind == "omics":
        return _fixed_lists([record.omics.get(rest) for record in records], column.type)
    if kind == "endpoint":
        return pa.array([record.endpoints.get(rest) for record in records], column.type)
    if kind == "annotation":
        name, part = rest.split("/")
        drawn = [record.annotations.get(name) for record in records]
        if part == "regions":
            return pa.array([None if d is None else pack_regions(d.regions) for d in drawn], column.type)
        return _fixed_lists([None if d is None else getattr(d, part) for d in drawn], column.type)
    if kind == "image":
        name, part = rest.split("/")
        images = [record.images.get(name) for record in records]
        if part == "voxels":
            return pa.array(
                [None if i is None else i.voxels.reshape(-1).view(np.uint8).data for i in images], column.type
            )
        parts = [None if i is None else getattr(i, part) for i in images]
        return _fixed_lists([None if p is None else p.ravel() for p in parts], column.type)
    return pa.array([getattr(record, column.name) for record in records], column.type)


def pack_regions(regions: np.ndarray) -> bytes:
    """Bits of [R, *shape] bool."""
    return np.packbits(regions.reshape(len(regions), -1), axis=1).tobytes()


def unpack_regions(stored: memoryview, count: int, shape: Sequence[int]) -> np.ndarray:
    """[R, *shape] bool of what `pack_regions` gave.

    Raises:
        DataError: It holds more or fewer bytes than so many regions have.
    """
    voxels = math.prod(shape)
    expected = count * -(-voxels // 8)
    if len(stored) != expected:
        raise DataError(f"regions hold {len(stored)} bytes instead of {expected}", fix="prepare the cohort again")
    planes = np.frombuffer(stored, dtype=np.uint8).reshape(count, -1)
    return np.unpackbits(planes, axis=1, count=voxels).view(bool).reshape(count, *shape)


def _fixed_lists(rows: list[np.ndarray | None], kind: pa.FixedSizeListType) -> pa.Array:
    import pyarrow as pa

    value_type = kind.value_type.to_pandas_dtype()
    values = np.full((len(rows), kind.list_size), False if value_type is np.bool_ else np.nan, dtype=value_type)
    for position, row in enumerate(rows):
        if row is not None:
            values[position] = row
    absent = pa.array([row is None for row in rows])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind, mask=absent)


def write_index(folder: Path, features: Any, shards: Sequence[Path], fingerprint: str) -> None:
    """Write the two small files that let `datasets.load_from_disk` open the shards."""
    from datasets import DatasetInfo

    DatasetInfo(features=features).write_to_directory(str(folder))
    state = {
        "_data_files": [{"filename": shard.name} for shard in shards],
        "_fingerprint": fingerprint[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
