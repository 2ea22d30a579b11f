"""Shards of a cohort, memory-mapped when first read; those not read for longest are closed."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from foundation.cohort.files import RECORDS, CohortFiles
from foundation.cohort.manifest import Shard
from foundation.errors import DataError
from foundation.files.cache import Held


class OpenShard:
    """The records of one shard as views of its file.

    Args:
        held: The file; let go with the shard.
        columns: Positions of those to read, all by default; each costs some microseconds.
    """

    def __init__(self, held: Held, columns: list[int] | None = None) -> None:
        self._held = held
        with held.path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        options = pa.ipc.IpcReadOptions(included_fields=columns, use_threads=False)
        with pa.ipc.open_stream(pa.py_buffer(mapped), options=options) as reader:
            self.table = reader.read_all()
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self.table.column(0).chunks)])
        self._lists: dict[str, list[np.ndarray]] = {}
        self._bytes: dict[str, list[tuple[np.ndarray, memoryview | None]]] = {}

    def __len__(self) -> int:
        return len(self.table)

    def close(self) -> None:
        """Let go of the file; arrays that are still in use keep what they show."""
        self._held.close()

    def lists(self, column: str, rows: np.ndarray, items: slice = slice(None)) -> np.ndarray:
        """[n, items] of a column of lists, a copy."""
        if column not in self._lists:
            self._lists[column] = [view_lists(chunk) for chunk in self.table.column(column).chunks]
        chunks = self._lists[column]
        if len(chunks) == 1:
            return chunks[0][rows, items]
        chunk_of, offset = self._locate(rows)
        gathered = np.empty((len(rows), chunks[0][:, items].shape[1]), dtype=chunks[0].dtype)
        for chunk in np.unique(chunk_of):
            here = chunk_of == chunk
            gathered[here] = chunks[chunk][offset[here], items]
        return gathered

    def bytes(self, column: str, row: int) -> memoryview | None:
        """The bytes of one record as a view of the file, None where there are none."""
        if column not in self._bytes:
            self._bytes[column] = [_view_bytes(chunk) for chunk in self.table.column(column).chunks]
        chunk, offset = self._locate(np.array([row]))
        offsets, data = self._bytes[column][chunk[0]]
        start, stop = int(offsets[offset[0]]), int(offsets[offset[0] + 1])
        return None if data is None or start == stop else data[start:stop]

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chunk = np.searchsorted(self._starts, rows, side="right") - 1
        return chunk, rows - self._starts[chunk]


class OpenShards:
    """The shards of a cohort by number.

    Args:
        files: Where they are.
        names: Of the files, in the order of their records.
        entries: What cohort.json says of each.

    Attributes:
        most: How many are open at a time.
    """

    def __init__(self, files: CohortFiles, names: Sequence[str], entries: Sequence[Shard | None]) -> None:
        self.files = files
        self.names = list(names)
        self.entries = list(entries)
        self.most = files.most_open(max((entry.bytes for entry in entries if entry), default=0))
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._large: list[int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> OpenShard:
        """The shard, opened if it is not yet.

        Raises:
            DataError: It is not there or damaged.
        """
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        while len(self._open) >= self.most:
            self._open.popitem(last=False)[1].close()
        shard = self.read(number, self._large)
        self._open[number] = shard
        if self._large is None:
            # What is small is read of the index; all shards have the same columns.
            self._large = [i for i, column in enumerate(shard.table.column_names) if is_large(column)]
        return shard

    def read(self, number: int, columns: list[int] | None = None) -> OpenShard:
        """A shard with all of its columns or some, opened for the caller alone.

        Raises:
            DataError: It is not there or damaged.
        """
        name = f"{RECORDS}/{self.names[number]}"
        try:
            return OpenShard(self.files.hold(name, self.entries[number]), columns)
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            raise DataError(
                f"cannot be read: {' '.join(str(error).split())[:200]}",
                where=self.files.place(name),
                fix="prepare the cohort again, into an empty folder",
            ) from None

    def fetch(self, number: int) -> None:
        """Have a shard on a local disk, for whoever opens it soon; may be called from any thread."""
        self.files.ensure(f"{RECORDS}/{self.names[number]}", self.entries[number])


def is_large(column: str) -> bool:
    """Whether a column of the records is read when a record is, and not known from the index."""
    kind, _, part = column.partition("/")
    return kind == "omics" or (kind in ("image", "annotation") and part.endswith(("/voxels", "/affine", "/regions")))


def view_lists(chunk: pa.FixedSizeListArray) -> np.ndarray:
    """[n, list_size] of a chunk; a view for numbers (Arrow packs booleans into bits)."""
    values = chunk.values.to_numpy(zero_copy_only=False)
    return values.reshape(-1, chunk.type.list_size)[chunk.offset : chunk.offset + len(chunk)]


def _view_bytes(chunk: pa.LargeBinaryArray) -> tuple[np.ndarray, memoryview | None]:
    _, offsets, data = chunk.buffers()
    positions = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    return positions, None if data is None else memoryview(data)
