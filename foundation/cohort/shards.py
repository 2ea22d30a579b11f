"""One shard of a cohort: the scans and rows of its records read, standardised and written, in a worker process."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.cohort.annotations.base import Grid
from foundation.cohort.fingerprint import describe_file
from foundation.cohort.imaging import StandardImage, standardise
from foundation.cohort.inventory import Fault, build_annotations, build_sources, label_of
from foundation.cohort.manifest import Shard
from foundation.cohort.record_plans import RecordPlan, ScanChoice
from foundation.cohort.records import Annotation, Image, Record, write_shard
from foundation.cohort.regions import annotate
from foundation.cohort.sources.base import Volume
from foundation.cohort.spec import CohortSpec
from foundation.cohort.staging import StagedTable
from foundation.errors import ChiasmaError, DataError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class ShardReport:
    """What a worker says of a finished shard; kept as JSON so that a later start need not repeat it.

    Attributes:
        records: Number of records written.
        shard: Size and hash of the file.
        bytes_read: Size of the image files read.
        files: Path below the root, bytes and SHA-256 of every image file.
        faults: Scans set aside.
        remarks: Modality to what was done to its scans that a user should know, to how often.
    """

    records: int
    shard: Shard | None = None
    bytes_read: int = 0
    files: list[tuple[str, int, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: dict[str, Counter[str]] = field(default_factory=dict)

    def remark(self, modality: str, remarks: Mapping[str, int]) -> None:
        """Add to the remarks on a modality."""
        self.remarks.setdefault(modality, Counter()).update(remarks)

    def write(self, path: Path) -> None:
        """Write as JSON; the file appears only when it is whole."""
        partial = path.with_suffix(f".{os.getpid()}.partial")
        assert self.shard is not None, "the shard is not written yet"
        remarks = {name: dict(found) for name, found in self.remarks.items()}
        document = {**asdict(replace(self, remarks={})), "shard": self.shard.model_dump(), "remarks": remarks}
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> ShardReport:
        """Read what `write` wrote."""
        document = json.loads(path.read_text(encoding="utf-8"))
        document["files"] = [tuple(row) for row in document["files"]]
        document["shard"] = Shard(**document["shard"])
        document["faults"] = [Fault(*row) for row in document["faults"]]
        document["remarks"] = {name: Counter(found) for name, found in document["remarks"].items()}
        return cls(**document)


class ShardWriter:
    """Everything that is the same for all shards; built once per worker.

    Args:
        spec: The cohort.
        tables: Omics modality to its staged tables.
        features: Omics modality to the union of features.
        schema: Of the records.
    """

    def __init__(
        self,
        spec: CohortSpec,
        tables: dict[str, list[StagedTable]],
        features: dict[str, list[str]],
        schema: pa.Schema,
    ) -> None:
        self.spec = spec
        self.schema = schema
        self.sources = {name: build_sources(m, spec) for name, m in spec.images().items()}
        self.annotations = {name: build_annotations(recipe, spec) for name, recipe in spec.annotations.items()}
        self.tables = {name: [_Aligned(t, features[name]) for t in staged] for name, staged in tables.items()}

    def write(self, path: Path, report_path: Path, plans: list[RecordPlan]) -> ShardReport:
        """Read, standardise and write these records, then the report that marks the shard as finished.

        Raises:
            WriteError: The disk is full or read-only.
        """
        report = ShardReport(records=len(plans))
        report.shard = write_shard(path, self.schema, self._records(plans, report))
        report.write(report_path)
        return report

    def _records(self, plans: list[RecordPlan], report: ShardReport) -> Iterator[Record]:
        for plan in plans:
            self._hash_files(plan, report)
            images, annotations = {}, {}
            for name, scans in plan.scans.items():
                volumes = self._volumes(plan.patient, name, scans, report)
                standard = self._standardise(plan.patient, name, volumes, report)
                if standard is not None:
                    images[name] = Image(
                        standard.voxels, standard.channels_present, standard.statistics, standard.affine
                    )
                annotations |= self._annotations(plan, name, volumes, standard, report)
            yield Record(
                patient=plan.patient,
                time_point=plan.time_point,
                site=plan.site,
                group=plan.group,
                images=images,
                omics=self._omics(plan.patient),
                endpoints=plan.endpoints,
                annotations=annotations,
            )

    def _omics(self, patient: str) -> dict[str, np.ndarray]:
        rows = {}
        for name, tables in self.tables.items():
            row = next((row for table in tables if (row := table.row(patient)) is not None), None)
            if row is not None and not np.isnan(row).all():
                rows[name] = row
        return rows

    def _volumes(self, patient: str, name: str, scans: dict[str, ScanChoice], report: ShardReport) -> dict[str, Volume]:
        """The channels of an image that can be read."""
        modality = self.spec.images()[name]
        volumes: dict[str, Volume] = {}
        for channel in modality.channels:
            if channel not in scans:
                continue
            try:
                volume = self._read(name, scans[channel], report)
            except Exception as error:
                report.faults.append(self._fault(patient, name, channel, error))
                continue
            if volume is not None:
                volumes[channel] = volume
        return volumes

    def _read(self, name: str, choice: ScanChoice, report: ShardReport) -> Volume | None:
        source = self.sources[name][choice.source]
        try:
            return source.read(choice.scan)
        finally:
            report.remark(name, source.remarks)
            source.remarks.clear()

    def _fault(self, patient: str, modality: str, item: str, error: Exception) -> Fault:
        """The fault of one scan; whatever its bytes provoke, it does not end the run.

        Raises:
            The error itself, where it says nothing of the scan: the machine has no memory left, or no room.
        """
        if isinstance(error, DataError):
            return Fault(patient, modality, item, _one_line(error.where, error.what, self.spec), _plain(error.fix))
        if isinstance(error, ChiasmaError | MemoryError):
            raise error
        what = f"cannot be read, for a reason that was not foreseen ({type(error).__name__}: {error})"
        return Fault(patient, modality, item, _one_line("", what, self.spec), "leave the scan out, and report this")

    def _hash_files(self, plan: RecordPlan, report: ShardReport) -> None:
        paths = {
            path
            for name, scans in plan.scans.items()
            for choice in scans.values()
            for path in self.sources[name][choice.source].files(choice.scan)
        }
        for name, choices in plan.annotations.items():
            paths |= {path for choice in choices for path in self.annotations[name][choice.source].files(choice.scan)}
        # What cannot be read is reported by whoever reads it.
        rows = [describe_file(path, self.spec.root) for path in sorted(paths) if os.access(path, os.R_OK)]
        report.files += rows
        report.bytes_read += sum(size for _, size, _ in rows)

    def _standardise(
        self, patient: str, name: str, volumes: dict[str, Volume], report: ShardReport
    ) -> StandardImage | None:
        if not volumes:
            return None
        try:
            standard = standardise(volumes, self.spec.images()[name])
        except Exception as error:
            report.faults.append(self._fault(patient, name, "+".join(volumes), error))
            return None
        report.remark(name, Counter(standard.remarks))
        return standard

    def _annotations(
        self,
        plan: RecordPlan,
        image: str,
        volumes: dict[str, Volume],
        standard: StandardImage | None,
        report: ShardReport,
    ) -> dict[str, Annotation]:
        """What is drawn on one image; a drawing that does not fit it is set aside."""
        placed = {}
        for name, choices in plan.annotations.items():
            recipe = self.spec.annotations[name]
            if recipe.image != image:
                continue
            drawings = []
            for choice in choices:
                source = self.annotations[name][choice.source]
                try:
                    drawings.append(source.read(choice.scan, _grids(volumes, standard, recipe.channel)))
                except Exception as error:
                    report.faults.append(self._fault(plan.patient, label_of(name), choice.scan.channel, error))
                report.remark(label_of(name), source.remarks)
                source.remarks.clear()
            if drawings and standard is not None:
                placed[name] = annotate(drawings, list(recipe.regions), standard)
                report.remark(label_of(name), _losses(placed[name]))
        return placed


def _grids(volumes: dict[str, Volume], standard: StandardImage | None, channel: str | None) -> list[Grid]:
    """The grids that a drawing on an image may have, no two alike.

    Raises:
        DataError: The image, or the channel, is not there.
    """
    if standard is None:
        raise DataError("its image cannot be used", fix="see what is said of the image")
    if channel is not None and channel not in volumes:
        raise DataError(f"channel '{channel}', on which it was drawn, is not there", fix="add that channel")
    found: list[Grid] = []
    for name, volume in volumes.items():
        grid = Grid.of(volume)
        if channel in (None, name) and not any(grid.is_that_of(other) for other in found):
            found.append(grid)
    return found


def _losses(annotation: Annotation) -> dict[str, int]:
    """Remarks on regions of which the stored image has not everything."""
    counts = {
        "regions that lie in part outside of the stored image": int(
            ((annotation.kept > 0) & (annotation.kept < 1)).sum()
        ),
        "regions of which the stored image shows nothing": int((annotation.kept == 0).sum()),
    }
    return {what: count for what, count in counts.items() if count}


class _Aligned:
    """A staged table whose rows come in the order of the modality's features."""

    def __init__(self, table: StagedTable, features: list[str]) -> None:
        self.table = table
        self.width = len(features)
        position = {feature: index for index, feature in enumerate(features)}
        self.columns = (
            None if table.features == features else np.array([position[f] for f in table.features], dtype=np.int64)
        )

    def row(self, patient: str) -> np.ndarray | None:
        values = self.table.row(patient)
        if values is None or self.columns is None:
            return values
        row = np.full(self.width, np.nan, dtype=np.float32)
        row[self.columns] = values
        return row


def _one_line(where: str, what: str, spec: CohortSpec) -> str:
    return _plain(f"{where}: {what}" if where else what).replace(f"{spec.root}/", "")


def _plain(text: str) -> str:
    """Text for a cell of a tab-separated table."""
    return " ".join(text.split())


_writer: ShardWriter | None = None
"""The writer of this worker process; set once by `start_worker`, never in the main process."""


def start_worker(spec: CohortSpec, tables: dict[str, list[StagedTable]], features: dict, schema: pa.Schema) -> None:
    """Set a worker process up: one writer, and an end when its parent ends."""
    global _writer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _writer = ShardWriter(spec, tables, features, schema)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(path: Path, report_path: Path, plans: list[RecordPlan]) -> ShardReport:
    """Write one shard and its report, in a worker process."""
    assert _writer is not None, "start_worker was not called"
    return _writer.write(path, report_path, plans)
