"""The records of a prepared cohort in Arrow shards: voxels memory-mapped without a copy, affines, omics, endpoints.

A record is one patient at one time point. Columns: ``patient``, ``time_point``, ``site``, ``group``;
per image modality ``image/NAME/voxels`` (raw C-order bytes of [C, *shape]), ``image/NAME/channels``,
``image/NAME/statistics`` and ``image/NAME/affine`` (16 float64, row by row the 4 x 4 matrix from voxel indices
(i, j, k, 1) of the stored grid to millimetres of the scan's world, RAS+; null where the source says no place or
`spacing: untrue` distrusts it); per omics modality ``omics/NAME`` (float32, NaN where not measured); per endpoint
``endpoint/NAME`` or ``endpoint/NAME/time`` and ``endpoint/NAME/event``. Null means absent.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.cohort.manifest import ImageEntry, Manifest, OmicsEntry, Shard
from foundation.errors import DataError, nearest
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
class Record:
    """One patient at one time point, as written; a modality that is missing from a dictionary is absent."""

    patient: str
    time_point: str = ""
    site: str | None = None
    group: str | None = None
    images: dict[str, Image] = field(default_factory=dict)
    omics: dict[str, np.ndarray] = field(default_factory=dict)
    endpoints: dict[str, float | int] = field(default_factory=dict)

    def bytes(self) -> int:
        """Size of what is stored for it, roughly."""
        return sum(i.voxels.nbytes for i in self.images.values()) + sum(v.nbytes for v in self.omics.values())


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


class PreparedCohort:
    """A prepared cohort, opened for reading; every array is a view of the files or small.

    Args:
        path: The folder that `chiasma prepare` wrote.
        manifest: Of a cohort that is being finished and has no cohort.json yet.

    Raises:
        DataError: The folder is no complete prepared cohort, or its records are damaged.
    """

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        self.path = Path(path)
        self.manifest = manifest or Manifest.read(self.path)
        self.features: dict[str, list[str]] = _read_json(self.path / "features.json")
        self._refuse_incomplete()
        self._table = self._load()
        lengths = [len(chunk) for chunk in self._table.column("patient").chunks]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __reduce__(self) -> tuple:
        # A worker process maps the files itself rather than receive them.
        return (PreparedCohort, (self.path,))

    def __len__(self) -> int:
        """Number of records."""
        return int(self._starts[-1])

    def _load(self) -> pa.Table:
        import pyarrow as pa
        from datasets import Dataset

        try:
            table = Dataset.load_from_disk(str(self.path / "records")).data.table
        except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
            raise DataError(
                f"the records cannot be read: {' '.join(str(error).split())[:200]}",
                where=str(self.path / "records"),
                fix="prepare the cohort again, into an empty folder",
            ) from None
        if len(table) != self.manifest.records:
            raise DataError(
                f"{len(table)} records are there, cohort.json says {self.manifest.records}",
                where=str(self.path / "records"),
                fix="prepare the cohort again, into an empty folder",
            )
        return table

    def _refuse_incomplete(self) -> None:
        for name, shard in self.manifest.shards.items():
            path = self.path / "records" / name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes, cohort.json says {shard.bytes}"
                raise DataError(found, where=str(path), fix="prepare the cohort again, into an empty folder")

    def verify(self) -> None:
        """Read every file of records and compare its hash.

        Raises:
            DataError: One is damaged.
        """
        for name, shard in self.manifest.shards.items():
            path = self.path / "records" / name
            if sha256_of(path) != shard.sha256:
                raise DataError("is damaged", where=str(path), fix="prepare the cohort again, into an empty folder")

    @property
    def modalities(self) -> list[str]:
        """Names, in the order of every array with an axis M."""
        return list(self.manifest.modalities)

    def image(self, name: str) -> ImageEntry:
        """What cohort.json says of an image modality."""
        return self._entry(name, ImageEntry)

    def omics(self, name: str) -> OmicsEntry:
        """What cohort.json says of an omics modality."""
        return self._entry(name, OmicsEntry)

    def _entry(self, name: str, kind: type) -> Any:
        entry = self.manifest.modalities.get(name)
        if not isinstance(entry, kind):
            known = [n for n, e in self.manifest.modalities.items() if isinstance(e, kind)]
            raise DataError(
                f"has no {kind.model_fields['kind'].default} modality '{name}'",
                where=str(self.path),
                fix=nearest(name, known),
            )
        return entry

    def _strings(self, column: str) -> np.ndarray:
        return np.array([value or "" for value in self._table.column(column).to_pylist()], dtype=object)

    @cached_property
    def patients(self) -> np.ndarray:
        """[N] patient of every record."""
        return self._strings("patient")

    @cached_property
    def time_points(self) -> np.ndarray:
        """[N] time point of every record, empty where there is one only."""
        return self._strings("time_point")

    @cached_property
    def sites(self) -> np.ndarray:
        """[N] site of every record, empty where unknown."""
        return self._strings("site")

    @cached_property
    def groups(self) -> np.ndarray:
        """[N] group of every record, empty where the cohort has none."""
        return self._strings("group")

    @cached_property
    def present_NM(self) -> np.ndarray:
        """[N, M] bool: the modality is present."""
        present = np.zeros((len(self), len(self.modalities)), dtype=bool)
        for position, (name, entry) in enumerate(self.manifest.modalities.items()):
            column = f"image/{name}/voxels" if entry.kind == "image" else f"omics/{name}"
            present[:, position] = self._table.column(column).is_valid().to_numpy()
        return present

    @cached_property
    def _chunks(self) -> dict[str, list[np.ndarray]]:
        chunks = {}
        for name, entry in self.manifest.modalities.items():
            columns = [f"omics/{name}"]
            if entry.kind == "image":
                columns = [f"image/{name}/{part}" for part in ("channels", "statistics", "affine")]
            for column in columns:
                if column in self._table.column_names:
                    chunks[column] = [_view_lists(chunk) for chunk in self._table.column(column).chunks]
        return chunks

    @cached_property
    def _voxel_chunks(self) -> dict[str, list[tuple[np.ndarray, memoryview | None]]]:
        names = [n for n, e in self.manifest.modalities.items() if e.kind == "image"]
        return {n: [_view_bytes(c) for c in self._table.column(f"image/{n}/voxels").chunks] for n in names}

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chunk = np.searchsorted(self._starts, rows, side="right") - 1
        return chunk, rows - self._starts[chunk]

    def _gather(self, column: str, rows: Sequence[int] | np.ndarray, items: slice = slice(None)) -> np.ndarray:
        rows = np.asarray(rows, dtype=np.int64)
        chunks = self._chunks[column]
        chunk_of, offset = self._locate(rows)
        gathered = np.empty((len(rows), chunks[0][:, items].shape[1]), dtype=chunks[0].dtype)
        for chunk in np.unique(chunk_of):
            here = chunk_of == chunk
            gathered[here] = chunks[chunk][:, items][offset[here]]
        return gathered

    def values_NF(self, name: str, rows: Sequence[int] | np.ndarray, features: slice = slice(None)) -> np.ndarray:
        """[N, F] float32 values of these records, NaN where not measured and where the modality is absent."""
        return self._gather(f"omics/{name}", rows, features)

    def channels_NC(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, C] bool: the channel was acquired."""
        return self._gather(f"image/{name}/channels", rows)

    def statistics_NC4(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, C, 4] float32 low, high, mean and std of each channel's intensities, NaN where absent."""
        flat = self._gather(f"image/{name}/statistics", rows)
        return flat.reshape(len(flat), -1, len(STATISTICS))

    def affine_N44(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, 4, 4] float64 from voxel indices (i, j, k, 1) to millimetres of the scan's world (RAS+).

        All channels of a record lie on one grid. NaN where the image is absent or its place is not known.

        Raises:
            DataError: The cohort was prepared when affines were not kept.
        """
        self.image(name)
        column = f"image/{name}/affine"
        if column not in self._chunks:
            raise DataError(
                f"does not hold where the scans of '{name}' lie: an earlier version of chiasma prepared it",
                where=str(self.path),
                fix="prepare the cohort again, into an empty folder",
            )
        return self._gather(column, rows).reshape(-1, 4, 4)

    def voxels(self, name: str, row: int) -> np.ndarray | None:
        """[C, *shape] voxels of one record as a read-only view of the file, or None where absent.

        Raises:
            DataError: The record holds more or fewer bytes than the image has.
        """
        entry = self.image(name)
        chunk, offset = self._locate(np.array([row]))
        offsets, data = self._voxel_chunks[name][chunk[0]]
        start, stop = int(offsets[offset[0]]), int(offsets[offset[0] + 1])
        if data is None or start == stop:
            return None
        shape = (len(entry.channels), *entry.shape)
        expected = math.prod(shape) * np.dtype(entry.stored_as).itemsize
        if stop - start != expected:
            raise DataError(
                f"the image '{name}' holds {stop - start} bytes instead of {expected}",
                where=f"{self.path}, record {row}",
                fix="prepare the cohort again, into an empty folder",
            )
        return np.frombuffer(data[start:stop], dtype=entry.stored_as).reshape(shape)

    def endpoint(self, name: str) -> dict[str, np.ndarray]:
        """Values of an endpoint over all records.

        Returns:
            ``time`` and ``event`` [N] float64 for survival, NaN where missing, the event 0 where censored and else
            1 or the number of its cause; ``value`` [N] float64 for regression, NaN where missing; else ``code`` [N]
            int64, -1 where missing.
        """
        if name not in self.manifest.endpoints:
            raise DataError(
                f"has no endpoint '{name}'", where=str(self.path), fix=nearest(name, self.manifest.endpoints)
            )
        kind = self.manifest.endpoints[name]["kind"]
        if kind == "survival":
            return {part: self._numbers(f"endpoint/{name}/{part}") for part in ("time", "event")}
        values = self._numbers(f"endpoint/{name}")
        if kind == "regression":
            return {"value": values}
        return {"code": np.where(np.isnan(values), -1, values).astype(np.int64)}

    def _numbers(self, column: str) -> np.ndarray:
        import pyarrow as pa

        return self._table.column(column).cast(pa.float64()).fill_null(np.nan).to_numpy()

    @cached_property
    def folds(self) -> dict[str, dict[str, str]]:
        """Published folds: fold to patient to ``train`` or ``val``; empty where there are none."""
        path = self.path / "folds.json"
        return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), fix="prepare the cohort again") from None


def _view_lists(chunk: pa.FixedSizeListArray) -> np.ndarray:
    """[n, list_size] of a chunk; a view for numbers (Arrow packs booleans into bits)."""
    values = chunk.values.to_numpy(zero_copy_only=False)
    return values.reshape(-1, chunk.type.list_size)[chunk.offset : chunk.offset + len(chunk)]


def _view_bytes(chunk: pa.LargeBinaryArray) -> tuple[np.ndarray, memoryview | None]:
    _, offsets, data = chunk.buffers()
    positions = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    return positions, None if data is None else memoryview(data)
