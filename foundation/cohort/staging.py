"""Omics tables staged on disk: chosen samples by features as float32, written once, read back row by row."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from foundation.cohort.barcodes import PatientRule
from foundation.cohort.reading.feature_names import unversioned
from foundation.cohort.reading.features import several_versions
from foundation.cohort.sources.base import BLOCK_VALUES, Block, Table, TableSource
from foundation.cohort.transforms import apply, parse
from foundation.errors import DataError, writing
from foundation.files.hashing import sha256_of

LAYOUT = 3
"""Number of this file's way of staging; a stage of another number is made again."""


@dataclass
class StagedTable:
    """A table on disk, [S, F] float32, and which of its rows belong to which patient.

    It can be sent to another process, which maps the file for itself.

    Attributes:
        path: The ``.npy`` file.
        features: Names, unique, in the order of the columns.
        samples: Barcodes in the order of the rows.
        by_patient: Patient to rows; several only where their mean is wanted.
        unmatched: Barcodes that the patient rule does not match.
        left_out: Barcodes of a sample type that is left out.
        remarks: What was done to the table that a user should know, to how often.
        sha256: Of the source file.
        key: SHA-256 of all that the stage depends on.
    """

    path: Path
    features: list[str]
    samples: list[str]
    by_patient: dict[str, list[int]]
    unmatched: list[str]
    left_out: list[str]
    remarks: dict[str, int]
    sha256: str
    key: str

    @classmethod
    def load(cls, path: Path) -> StagedTable:
        """Open a finished stage by the path of its ``.npy`` file.

        Raises:
            DataError: It is not there, or not finished.
        """
        table = cls._find(path)
        if table is None:
            raise DataError("is no finished stage of a table", where=str(path), fix="prepare the cohort again")
        return table

    @classmethod
    def _find(cls, path: Path) -> StagedTable | None:
        try:
            table = cls(path=path, **json.loads(_sidecar(path).read_text(encoding="utf-8")))
            whole = table.values.shape == (len(table.samples), len(table.features))
        except (OSError, ValueError, TypeError):
            return None
        return table if whole else None

    @cached_property
    def values(self) -> np.memmap:
        """All rows [S, F], memory-mapped."""
        return np.load(self.path, mmap_mode="r")

    def row(self, patient: str) -> np.ndarray | None:
        """One patient's values [F] float32: the row, or the mean of what was measured in several.

        Returns:
            None where the patient has no sample here.
        """
        rows = self.by_patient.get(patient)
        if rows is None:
            return None
        if len(rows) == 1:
            return self._read(rows[0])
        values = np.stack([self._read(row) for row in rows]).astype(np.float64)
        measured = ~np.isnan(values)
        mean = np.full(values.shape[1], np.nan, dtype=np.float32)
        number = measured.sum(axis=0)
        total = np.where(measured, values, 0).sum(axis=0)
        return np.divide(total, number, out=mean, where=number > 0, casting="same_kind")

    def _read(self, row: int) -> np.ndarray:
        # Of a mapping, every page that was ever read would count as memory of this process.
        width = self.values.shape[1]
        return np.fromfile(self.path, "<f4", count=width, offset=self.values.offset + row * width * 4)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "values"}


def stage(source: TableSource, rule: PatientRule, folder: Path, name: str, transform: Sequence[str]) -> StagedTable:
    """Read a table once and write the chosen samples to disk, or return what an earlier call wrote.

    Args:
        source: The table.
        rule: Which samples serve which patient.
        folder: Where to write ``NAME.npy`` and ``NAME.json``.
        name: Of the stage.
        transform: Names from foundation/cohort/transforms.py, applied to every value in order.

    Raises:
        DataError: The table cannot be used.
        WriteError: The disk is full, or the folder cannot be written; nothing half written is left.
    """
    for text in transform:
        parse(text)
    path = folder / f"{name}.npy"
    sha256, key = _identify(source, rule, transform)
    earlier = StagedTable._find(path)
    if earlier is not None and earlier.key == key:
        return earlier
    return _stage_anew(source, rule, path, transform, sha256, key)


def join_versions(tables: Sequence[StagedTable]) -> int:
    """Call features alike that differ, from table to table, by the version of an Ensembl id alone.

    Where there is one such feature, the ids of all these tables lose their versions.

    Returns:
        How many features bore several versions.
    """
    versions = several_versions(name for table in tables for name in table.features)
    if versions:
        for table in tables:
            table.features = [unversioned(name) for name in table.features]
    return len(set(versions.values()))


def _stage_anew(
    source: TableSource, rule: PatientRule, path: Path, transform: Sequence[str], sha256: str, key: str
) -> StagedTable:
    listed = source.list_samples()
    assignment = rule.assign(listed, where=str(source.path))
    chosen = sorted(row for rows in assignment.by_patient.values() for row in rows)
    if not chosen:
        raise DataError(
            f"no sample is left: {len(assignment.left_out)} of {len(listed)} are of a type that is left out",
            where=str(source.path),
            fix="correct patients.leave_out, or name another table",
        )
    others = [other for row in chosen for other in assignment.same.get(row, [])]
    if others:
        source.remarks["samples named at two lengths of their barcode, taken as one"] = len(others)
    passed_over = len(listed) - sum(map(len, (assignment.unmatched, assignment.left_out, chosen, others)))
    if passed_over:
        source.remarks["further samples of the same patients, not used (patients.several)"] = passed_over
    if source.long:
        source.same = {listed[other]: listed[row] for row, same in assignment.same.items() for other in same}
        others = []
    samples = [listed[row] for row in (*chosen, *others)]
    table = source.read(samples)
    place = {row: position for position, row in enumerate((*chosen, *others))}
    same = {place[row]: [place[o] for o in found] for row, found in assignment.same.items()} if others else {}
    differing = _write(path, table, len(chosen), same, transform, source.path)
    if differing:
        source.remarks["values that differ between two names of one sample, of which the first is used"] = differing
    samples = samples[: len(chosen)]
    staged = StagedTable(
        path=path,
        features=table.features,
        samples=samples,
        by_patient={patient: [place[row] for row in rows] for patient, rows in assignment.by_patient.items()},
        unmatched=assignment.unmatched,
        left_out=assignment.left_out,
        remarks=dict(source.remarks),
        sha256=sha256,
        key=key,
    )
    _write_sidecar(staged)
    return staged


def _identify(source: TableSource, rule: PatientRule, transform: Sequence[str]) -> tuple[str, str]:
    """The hash of the source file, and that of everything the stage depends on."""
    sha256 = sha256_of(source.path)
    document = {
        "layout": LAYOUT,
        "files": [sha256, *map(sha256_of, source.companions)],
        "config": source.config.model_dump(mode="json"),
        "rule": rule.model_dump(mode="json"),
        "transform": list(transform),
    }
    return sha256, hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _write_sidecar(staged: StagedTable) -> None:
    document = {key: value for key, value in asdict(staged).items() if key != "path"}
    with _new_file(_sidecar(staged.path)) as file, writing(staged.path.parent):
        _write_bytes(file.fileno(), np.frombuffer(json.dumps(document).encode(), np.uint8), 0)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole and on disk, and leaves nothing behind otherwise."""
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A sidecar says that its table is finished; it must not outlive the table it spoke of.
            _sidecar(path).unlink(missing_ok=True)
            file = partial.open("w+b", buffering=0)
        with file:
            yield file
            with writing(path.parent):
                os.fsync(file.fileno())
        with writing(path.parent):
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _write(
    path: Path, table: Table, samples: int, same: dict[int, list[int]], transform: Sequence[str], where: Path
) -> int:
    """Write the table and make one row of those that are one sample.

    Args:
        path: The file.
        table: Rows of `samples` samples, then those of other names for some of them.
        samples: How many rows are kept.
        same: A row to those of its other names.
        transform: Applied to every value.
        where: The source, for messages.

    Returns:
        How many values differ between two names of one sample.
    """
    rows, width = samples + sum(map(len, same.values())), len(table.features)
    written = 0
    with _new_file(path) as file:
        with writing(path.parent):
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (samples, width)}
            )
        start = file.tell()
        for block in _widened(table.blocks):
            values = _transformed(block, transform, where)
            with writing(path.parent):
                _write_block(file.fileno(), start, width, block, values)
            written += values.size
        if written != rows * width:
            raise DataError(f"gave {written} of {rows} x {width} values", where=str(where), fix="read it again")
        if not same:
            return 0
        with writing(path.parent):
            differing = _join_names(np.memmap(file, "<f4", "r+", start, (rows, width)), same)
            file.truncate(start + samples * width * 4)
        return differing


def _join_names(values: np.memmap, same: dict[int, list[int]]) -> int:
    """Fill what a row lacks from the rows of the same sample, in order; returns how many values differ."""
    differing = 0
    for row, others in same.items():
        for other in others:
            here, there = ~np.isnan(values[row]), ~np.isnan(values[other])
            differing += int((here & there & (values[row] != values[other])).sum())
            values[row] = np.where(here, values[row], values[other])
    values.flush()
    return differing


def _widened(blocks: Iterator[Block]) -> Iterator[Block]:
    """Join blocks of neighbouring features up to `BLOCK_VALUES`: a narrow one costs a write for every sample."""
    waiting: list[Block] = []
    for block in blocks:
        if waiting and not (
            block.samples == waiting[-1].samples
            and block.features.start == waiting[-1].features.stop
            and sum(other.values.size for other in waiting) + block.values.size <= BLOCK_VALUES
        ):
            yield _join(waiting)
            waiting = []
        waiting.append(block)
    if waiting:
        yield _join(waiting)


def _join(blocks: list[Block]) -> Block:
    values = np.concatenate([block.values for block in blocks], axis=1)
    return Block(blocks[0].samples, slice(blocks[0].features.start, blocks[-1].features.stop), values)


def _transformed(block: Block, transform: Sequence[str], where: Path) -> np.ndarray:
    try:
        return np.ascontiguousarray(apply(transform, block.values), dtype="<f4")
    except DataError as error:
        raise DataError(error.what, where=str(where), fix=error.fix) from None


def _write_block(file: int, start: int, width: int, block: Block, values: np.ndarray) -> None:
    """Write a rectangle at its place; calls to the system, unlike a memory map, say when the disk is full."""
    if values.shape[1] == width:
        _write_bytes(file, values.reshape(-1), start + block.samples.start * width * 4)
        return
    for row, sample in zip(values, range(block.samples.start, block.samples.stop), strict=True):
        _write_bytes(file, row, start + (sample * width + block.features.start) * 4)


def _write_bytes(file: int, values: np.ndarray, offset: int) -> None:
    left = values.data.cast("B")
    while left:
        done = os.pwrite(file, left, offset)
        left, offset = left[done:], offset + done
