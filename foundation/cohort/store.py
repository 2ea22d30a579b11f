"""A prepared cohort, opened for reading: its records by column, voxels memory-mapped without a copy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from foundation.cohort.files import RECORDS, files_at
from foundation.cohort.index import FILE as INDEX_FILE
from foundation.cohort.index import Index, collect_index, read_index
from foundation.cohort.manifest import FILE as MANIFEST_FILE
from foundation.cohort.manifest import AnnotationEntry, ImageEntry, Manifest, OmicsEntry, Shard
from foundation.cohort.open_shards import OpenShards, view_lists
from foundation.cohort.records import AFFINE_NUMBERS, STATISTICS, Annotation, unpack_regions
from foundation.errors import DataError, nearest
from foundation.files.cache import CacheConfig
from foundation.files.hashing import sha256_of
from foundation.progress import Progress, Silent


class PreparedCohort:
    """A prepared cohort, opened for reading; every array is a view of the files or small.

    Opening reads cohort.json and a few small files beside it. A shard is opened, and fetched where the cohort is at a
    URL, when one of its records is read.

    Args:
        path: The folder that `chiasma prepare` wrote, or a URL that it was copied to.
        manifest: Of a cohort that is being finished and has no cohort.json yet.
        cache: For what is fetched from a URL.
        sharing: How many cohorts a process reads through the cache.

    Raises:
        ConfigError: The URL holds a secret, or may not be read.
        DataError: It is no complete prepared cohort, or its records are damaged.
        StoreError: The store at the URL keeps failing.
    """

    def __init__(
        self,
        path: Path | str,
        manifest: Manifest | None = None,
        cache: CacheConfig | None = None,
        sharing: int = 1,
    ) -> None:
        self.files = files_at(path, cache, sharing)
        self.path = path if self.files.remote else Path(path)
        self._cache, self._sharing = cache, sharing
        if manifest is None:
            text = self.files.read(MANIFEST_FILE) if self.files.remote else Manifest.text_of(Path(path))
            self.hash, manifest = sha256(text).hexdigest(), Manifest.parse(text, f"{path}/{MANIFEST_FILE}")
        self.manifest = manifest
        self.features: dict[str, list[str]] = self._read_json("features.json")
        if isinstance(self.path, Path):
            self._refuse_incomplete(self.path)
        self.index, self._shards = self._open_records()
        self._starts = np.concatenate([[0], np.cumsum([*self.index.shards.values()])]).astype(np.int64)
        if len(self) != self.manifest.records:
            raise DataError(
                f"{len(self)} records are there, cohort.json says {self.manifest.records}",
                where=f"{path}/{RECORDS}",
                fix="prepare the cohort again, into an empty folder",
            )

    def __reduce__(self) -> tuple:
        # A worker process maps the files itself rather than receive them.
        return (PreparedCohort, (self.path, None, self._cache, self._sharing))

    def __len__(self) -> int:
        """Number of records."""
        return int(self._starts[-1])

    def _open_records(self) -> tuple[Index, OpenShards]:
        known = self.manifest.files.get(INDEX_FILE)
        if known is None and not self.files.remote:
            names = [entry["filename"] for entry in self._read_json(f"{RECORDS}/state.json")["_data_files"]]
            self._read_json(f"{RECORDS}/dataset_info.json")
            shards = OpenShards(self.files, names, [None] * len(names))
            return collect_index(shards), shards
        # What is held keeps the index in the cache as long as this cohort is open.
        index, self._held = read_index(self.files, known)
        names = list(index.shards)
        return index, OpenShards(self.files, names, [self.manifest.shards.get(name) for name in names])

    def _read_json(self, name: str) -> Any:
        text = self.files.read(name, self.manifest.files.get(name))
        try:
            return json.loads(text)
        except ValueError as error:
            fix = "prepare the cohort again"
            raise DataError(f"cannot be read: {error}", where=f"{self.path}/{name}", fix=fix) from None

    def _refuse_incomplete(self, folder: Path) -> None:
        for name, shard in self._known_files():
            path = folder / name
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                size = None
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes, cohort.json says {shard.bytes}"
                raise DataError(found, where=str(path), fix="prepare the cohort again, into an empty folder")

    @property
    def remote(self) -> bool:
        """Whether records are fetched before they are read."""
        return self.files.remote

    @property
    def shards(self) -> int:
        """Number of files of records."""
        return len(self._shards)

    @property
    def shards_at_a_time(self) -> int:
        """How many shards a process may hold, and as many be on their way, without others losing theirs."""
        return self._shards.most

    def shards_of(self, rows: np.ndarray) -> np.ndarray:
        """[N] number of the shard that holds each of these records."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def fetch(self, shard: int) -> None:
        """Have a shard on a local disk, for whoever reads it soon; may be called from any thread."""
        self._shards.fetch(shard)

    def _known_files(self) -> Iterator[tuple[str, Shard]]:
        yield from self.manifest.files.items()
        yield from ((f"{RECORDS}/{name}", shard) for name, shard in self.manifest.shards.items())

    def verify(self, progress: Progress | None = None) -> None:
        """Read every file that cohort.json knows and compare its hash; what is at a URL is compared as it is fetched.

        Args:
            progress: Told of files.

        Raises:
            DataError: One is damaged.
        """
        if self.files.remote:
            return
        known, told = list(self._known_files()), progress or Silent()
        told.start("verifying the cohort", len(known), "files")
        for name, shard in known:
            path = Path(self.path) / name
            if sha256_of(path) != shard.sha256:
                raise DataError("is damaged", where=str(path), fix="prepare the cohort again, into an empty folder")
            told.advance(1)
        told.finish()

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
        return np.array([value or "" for value in self.index.table.column(column).to_pylist()], dtype=object)

    @cached_property
    def patients(self) -> np.ndarray:
        """[N] patient of every record."""
        return self._strings("patient")

    @cached_property
    def patient_numbers(self) -> np.ndarray:
        """[N] int from 0, equal for records of one patient; to count patients among many records."""
        import pyarrow as pa

        return pa.array(self.patients, pa.string()).dictionary_encode().indices.to_numpy()

    def count_patients(self, rows: np.ndarray) -> int:
        """Patients among records."""
        return int(np.count_nonzero(np.bincount(self.patient_numbers[rows])))

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
            column = f"image/{name}/channels" if entry.kind == "image" else f"omics/{name}"
            present[:, position] = self.index.table.column(column).is_valid().to_numpy()
        return present

    def observed_counts(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """[N] int32 number of features of an omics modality that were observed, 0 where it is absent.

        None where the cohort does not know: an earlier version of chiasma prepared it.
        """
        return self._observed[name][rows] if self.index.counted else None

    @cached_property
    def _observed(self) -> dict[str, np.ndarray]:
        names = [n for n, entry in self.manifest.modalities.items() if entry.kind == "omics"]
        return {n: self.index.table.column(f"omics/{n}").fill_null(0).to_numpy() for n in names}

    @cached_property
    def _small_lists(self) -> dict[str, np.ndarray]:
        names = [n for n, entry in self.manifest.modalities.items() if entry.kind == "image"]
        columns = [f"image/{name}/{part}" for name in names for part in ("channels", "statistics")]
        columns += [f"annotation/{name}/{part}" for name in self.manifest.annotations for part in ("annotated", "kept")]
        return {c: np.concatenate([view_lists(chunk) for chunk in self.index.table.column(c).chunks]) for c in columns}

    def _gather(self, column: str, rows: Sequence[int] | np.ndarray, width: int, items: slice) -> np.ndarray:
        """[N, items] of a large column, shard by shard."""
        rows = np.asarray(rows, dtype=np.int64)
        shard_of = self.shards_of(rows)
        gathered: np.ndarray | None = None
        for shard in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == shard)
            values = self._shards[shard].lists(column, rows[here] - self._starts[shard], items)
            if gathered is None:
                gathered = np.empty((len(rows), values.shape[1]), dtype=values.dtype)
            gathered[here] = values
        if gathered is None:
            return np.empty((0, len(range(width)[items])), dtype=np.float32)
        return gathered

    def values_NF(self, name: str, rows: Sequence[int] | np.ndarray, features: slice = slice(None)) -> np.ndarray:
        """[N, F] float32 values of these records, NaN where not measured and where the modality is absent."""
        return self._gather(f"omics/{name}", rows, len(self.features[name]), features)

    def channels_NC(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, C] bool: the channel was acquired."""
        return self._small_lists[f"image/{name}/channels"][np.asarray(rows, dtype=np.int64)]

    def statistics_NC4(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, C, 4] float32 low, high, mean and std of each channel's intensities, NaN where absent."""
        flat = self._small_lists[f"image/{name}/statistics"][np.asarray(rows, dtype=np.int64)]
        return flat.reshape(len(flat), -1, len(STATISTICS))

    def affine_N44(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, 4, 4] float64 from voxel indices (i, j, k, 1) to millimetres of the scan's world (RAS+).

        All channels of a record lie on one grid. NaN where the image is absent or its place is not known.

        Raises:
            DataError: The cohort was prepared when affines were not kept.
        """
        self.image(name)
        try:
            return self._gather(f"image/{name}/affine", rows, AFFINE_NUMBERS, slice(None)).reshape(-1, 4, 4)
        except KeyError:
            raise DataError(
                f"does not hold where the scans of '{name}' lie: an earlier version of chiasma prepared it",
                where=str(self.path),
                fix="prepare the cohort again, into an empty folder",
            ) from None

    def voxels(self, name: str, row: int) -> np.ndarray | None:
        """[C, *shape] voxels of one record as a read-only view of the file, or None where absent.

        Raises:
            DataError: The record holds more or fewer bytes than the image has.
        """
        entry = self.image(name)
        shard = int(self.shards_of(np.array([row]))[0])
        stored = self._shards[shard].bytes(f"image/{name}/voxels", int(row - self._starts[shard]))
        if stored is None:
            return None
        shape = (len(entry.channels), *entry.shape)
        expected = math.prod(shape) * np.dtype(entry.stored_as).itemsize
        if len(stored) != expected:
            raise DataError(
                f"the image '{name}' holds {len(stored)} bytes instead of {expected}",
                where=f"{self.path}, record {row}",
                fix="prepare the cohort again, into an empty folder",
            )
        return np.frombuffer(stored, dtype=entry.stored_as).reshape(shape)

    def annotation_entry(self, name: str) -> AnnotationEntry:
        """What cohort.json says of an annotation.

        Raises:
            DataError: There is none of this name.
        """
        known = self.manifest.annotations
        if name not in known:
            raise DataError(f"has no annotation '{name}'", where=str(self.path), fix=nearest(name, known))
        return known[name]

    def annotated_NR(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, R] bool: somebody looked for the region in the image; only then is an empty one known not to be there."""
        self.annotation_entry(name)
        return self._small_lists[f"annotation/{name}/annotated"][np.asarray(rows, dtype=np.int64)]

    def kept_NR(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, R] float32 share of a region's source voxels that the stored image has; see `Annotation`."""
        self.annotation_entry(name)
        return self._small_lists[f"annotation/{name}/kept"][np.asarray(rows, dtype=np.int64)]

    def annotation(self, name: str, row: int) -> Annotation | None:
        """What is drawn on the image of one record, on the grid of its voxels; None where nobody drew.

        Raises:
            DataError: There is no annotation of this name, or the record holds more or fewer bytes than it has.
        """
        entry = self.annotation_entry(name)
        shard = int(self.shards_of(np.array([row]))[0])
        stored = self._shards[shard].bytes(f"annotation/{name}/regions", int(row - self._starts[shard]))
        if stored is None:
            return None
        try:
            regions = unpack_regions(stored, len(entry.regions), self.image(entry.image).shape)
        except DataError as error:
            what = f"the annotation '{name}': {error.what}"
            raise DataError(what, where=f"{self.path}, record {row}", fix=error.fix) from None
        return Annotation(regions, self.annotated_NR(name, [row])[0], self.kept_NR(name, [row])[0])

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

        return self.index.table.column(column).cast(pa.float64()).fill_null(np.nan).to_numpy()

    @cached_property
    def folds(self) -> dict[str, dict[str, str]]:
        """Published folds: fold to patient to ``train`` or ``val``; empty where there are none."""
        if self.files.remote:
            return self._read_json("folds.json") if "folds.json" in self.manifest.files else {}
        return self._read_json("folds.json") if (Path(self.path) / "folds.json").is_file() else {}
