"""Samples by features in an AnnData file (.h5ad), dense or sparse, any layer, never loaded as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from foundation.cohort.reading.damage import reading
from foundation.cohort.reading.features import DuplicateRule, Features
from foundation.cohort.reading.positions import positions_of, runs
from foundation.cohort.reading.tables import Frame, find_column
from foundation.cohort.sources.base import BLOCK_VALUES, Block, Table, TableConfig, TableSource, table_sources
from foundation.errors import DataError, nearest

if TYPE_CHECKING:
    import h5py


class H5adConfig(TableConfig):
    """What to read of an AnnData file."""

    format: Literal["h5ad"]
    layer: str | None = Field(
        None,
        description="Which layer holds the values; the matrix X by default. `raw` or `raw/X` is the matrix that was "
        "kept before features were chosen and scaled, with features of its own.",
    )
    sample_column: str | None = Field(None, description="Column of obs that names the samples; obs_names by default.")
    feature_column: str | None = Field(None, description="Column of var that names the features; var_names by default.")
    duplicate_features: DuplicateRule = Field(
        "error", description="What a feature that stands several times means: an error, the mean, or the first."
    )


@table_sources.register("h5ad")
class H5adSource(TableSource):
    """An AnnData file. A zero, stored or left out of a sparse matrix, was measured; NaN was not."""

    Config = H5adConfig
    config: H5adConfig

    def list_samples(self) -> list[str]:
        """Names of the observations, in the order of the file."""
        with self._open() as file:
            return self._names(file, "obs", self.config.sample_column)

    def read(self, samples: Sequence[str]) -> Table:
        """Open the file for these samples."""
        with self._open() as file:
            matrix, axis = self._places(file)
            listed = self._names(file, "obs", self.config.sample_column)
            names = self._names(file, axis, self.config.feature_column)
            shape = self._matrix(file, matrix).shape
        if shape != (len(listed), len(names)):
            raise DataError(
                f"the values are {shape[0]} by {shape[1]}, obs and var name {len(listed)} by {len(names)}",
                where=str(self.path),
                fix="write the file again with anndata",
            )
        features = Features(
            names,
            self.config.duplicate_features,
            self.path,
            self.remarks,
            leave_out=self.config.leave_out_features,
        )
        return Table(features.names, self._blocks(features, listed, samples))

    def _blocks(self, features: Features, listed: list[str], samples: Sequence[str]) -> Iterator[Block]:
        rows = positions_of(samples, listed, self.path)
        target_of_row = np.full(len(listed), -1)
        target_of_row[rows] = np.arange(len(samples))
        with self._open() as file:
            matrix = self._matrix(file, self._places(file)[0])
            by_columns = getattr(matrix, "format", "csr") == "csc" and not features.repeated
            pieces = _columns(matrix, rows, features) if by_columns else _rows(matrix, target_of_row, features)
            for block in pieces:
                endless = np.argwhere(np.isinf(block.values))
                if len(endless):
                    sample, feature = endless[0] + (block.samples.start, block.features.start)
                    raise DataError(
                        f"sample '{samples[sample]}', feature '{features.names[feature]}': the value is infinite",
                        where=str(self.path),
                        fix="replace it by NaN, which means not measured",
                    )
                yield block

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        import h5py

        with reading(self.path):
            if not self.path.is_file():
                raise FileNotFoundError(self.path)
            with h5py.File(self.path, "r") as file:
                if not {"obs", "var"} <= set(file):
                    raise DataError(
                        "is HDF5 but no AnnData file (it has no obs or no var)",
                        where=str(self.path),
                        fix="write it with anndata's write_h5ad",
                    )
                yield file

    def _names(self, file: Any, axis: str, column: str | None) -> list[str]:
        frame = self._frame(file, axis)
        if column is None:
            return _as_text(frame.index)
        find_column(column, list(frame.columns), self.path)
        old_categories = file.get(f"uns/{column}_categories")
        if frame[column].dtype.kind in "iu" and old_categories is not None:
            return _of_codes(frame[column].to_numpy(), np.atleast_1d(old_categories[()]))
        return _as_text(frame[column])

    def _frame(self, file: Any, axis: str) -> Frame:
        import h5py
        from anndata.io import read_elem

        try:
            with warnings.catch_warnings():
                # Files of earlier anndata versions are read well, with a warning about each element's age.
                warnings.filterwarnings("ignore", message=".*without encoding metadata.*")
                place = file[axis]
                compound = isinstance(place, h5py.Dataset) and place.dtype.names
                frame: Frame = _old_frame(place) if compound else read_elem(place)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._unreadable(axis, str(error).splitlines()[0]) from None
        if not hasattr(frame, "columns"):
            raise self._unreadable(axis, "it is no table")
        return frame

    def _unreadable(self, axis: str, why: str) -> DataError:
        return DataError(
            f"{axis} cannot be read: {why}", where=str(self.path), fix="write it with anndata's write_h5ad"
        )

    def _places(self, file: Any) -> tuple[str, str]:
        """Where the values lie in the file, and where the table of their features."""
        layer, layers = self.config.layer, file.get("layers", {})
        if layer is None or (layer == "X" and layer not in layers):
            if "X" not in file:
                raise DataError("has no matrix X", where=str(self.path), fix="name a `layer` to read, such as `raw`")
            return "X", "var"
        if layer in layers:
            return f"layers/{layer}", "var"
        # Before anndata 0.7 a full stop stood for the slash.
        raw = [apart for apart in ("/", ".") if f"raw{apart}X" in file]
        if layer in ("raw", "raw/X", "raw.X") and raw:
            return f"raw{raw[0]}X", f"raw{raw[0]}var"
        raise DataError(
            f"has no layer '{layer}'",
            where=str(self.path),
            fix=nearest(layer, [*layers, *(["raw"] if raw else []), *(["X"] if "X" in file else [])]),
        )

    def _matrix(self, file: Any, place: str) -> Any:
        """An HDF5 data set, or anndata's sparse matrix on disk; both are sliced."""
        import h5py
        from anndata.io import sparse_dataset

        values = file[place]
        matrix = values if isinstance(values, h5py.Dataset) else sparse_dataset(values)
        if matrix.dtype.kind not in "biuf" or len(matrix.shape) != 2:
            raise DataError(f"its values are no matrix of numbers but {matrix.dtype}", where=str(self.path))
        return matrix


def _as_text(names: Any) -> list[str]:
    """Names as text; old files hold bytes."""
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names]


def _old_frame(table: h5py.Dataset) -> Frame:
    """A table as anndata wrote it before 0.7: one compound data set, whose first field is the index."""
    import pandas as pd

    values = table[()]
    first, *others = values.dtype.names
    flat = {name: values[name] for name in others if values[name].ndim == 1}
    columns = {name: _as_text(cells) if cells.dtype.kind in "SO" else cells for name, cells in flat.items()}
    return pd.DataFrame(columns, index=pd.Index(_as_text(values[first])))


def _of_codes(codes: np.ndarray, categories: np.ndarray) -> list[str]:
    """The categories that codes stand for, as anndata kept them before 0.7; without one the text is empty."""
    words = _as_text(categories)
    if codes.max(initial=-1) >= len(words):
        return _as_text(codes)
    return [words[code] if code >= 0 else "" for code in codes]


def _dense(piece: Any) -> np.ndarray:
    return np.asarray(piece.toarray() if hasattr(piece, "toarray") else piece, dtype=np.float32)


def _rows(matrix: Any, target_of_row: np.ndarray, features: Features) -> Iterator[Block]:
    """Some samples with all features at a time."""
    step = max(1, BLOCK_VALUES // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        target = target_of_row[start : start + step]
        chosen = np.flatnonzero(target >= 0)
        if len(chosen) == 0:
            continue
        values = _dense(matrix[start : start + step])[chosen]
        values = features.merge(values if len(features.kept) == values.shape[1] else values[:, features.kept])
        for piece, samples in runs(target[chosen]):
            yield Block(samples, slice(0, len(features.names)), values[piece])


def _columns(matrix: Any, rows: np.ndarray, features: Features) -> Iterator[Block]:
    """Some features of all samples at a time: what a matrix compressed by columns is quick at."""
    step = max(1, BLOCK_VALUES // max(1, matrix.shape[0]))
    of_listed = features.of_listed
    for start in range(0, matrix.shape[1], step):
        targets = of_listed[start : start + step]
        kept = np.flatnonzero(targets >= 0)
        if len(kept):
            values = _dense(matrix[:, start : start + step])[rows][:, kept]
            yield Block(slice(0, len(rows)), slice(int(targets[kept[0]]), int(targets[kept[-1]]) + 1), values)
