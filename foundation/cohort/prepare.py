"""`chiasma prepare`: source files into a prepared cohort, in parallel, resumable, the same to the byte every time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.cohort.claim import WORKING, claimed_cohort
from foundation.cohort.counting import count
from foundation.cohort.index import FILE as INDEX_FILE
from foundation.cohort.index import write_index_of
from foundation.cohort.inventory import Fault, Inventory, take_inventory
from foundation.cohort.manifest import FILE, Manifest, Shard
from foundation.cohort.record_plans import RecordPlan
from foundation.cohort.records import record_features, write_index
from foundation.cohort.shards import ShardReport, ShardWriter, start_worker, work
from foundation.cohort.spec import CohortSpec
from foundation.cohort.store import PreparedCohort
from foundation.cohort.summary.page import write_summary
from foundation.config import load_config
from foundation.errors import ChiasmaError, DataError
from foundation.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_BYTES = 64 * 2**20
LIBRARIES = ("chiasma", "numpy", "pandas", "scipy", "nibabel", "pydicom", "pyarrow", "datasets", "anndata")


def prepare(
    path: Path,
    *,
    out: Path,
    root: Path | None = None,
    workers: int = 1,
    overrides: Sequence[str] = (),
    progress: Progress,
) -> Manifest:
    """Prepare the cohort that a YAML file describes.

    Args:
        path: cohort.yaml.
        out: Folder to write; empty, or one in which the same preparation was begun or finished.
        root: Folder of the source files, instead of the one in the YAML.
        workers: Processes that read images; the result does not depend on it.
        overrides: ``key=value`` changes to the YAML.
        progress: Shown while it lasts.

    Returns:
        What is in the cohort: the content of cohort.json.

    Raises:
        ConfigError, DataError: The YAML or the sources cannot be used, or too much was quarantined.
        WriteError: The disk is full or read-only.
    """
    spec = load_config(CohortSpec, path, overrides)
    if root is not None:
        spec = spec.model_copy(update={"root": root.resolve()})
    with claimed_cohort(out, spec.name) as working:
        inventory = take_inventory(spec, working / "tables", progress)
        if (out / FILE).is_file():
            return _already_prepared(out, inventory)
        _keep_what_is_finished(out, inventory)
        reports = _write_shards(out, inventory, workers, progress)
        _stop_on_too_many_faults(out, inventory, reports)
        return _publish(out, inventory, reports, progress)


def _already_prepared(out: Path, inventory: Inventory) -> Manifest:
    manifest = Manifest.read(out)
    shutil.rmtree(out / WORKING / "tables", ignore_errors=True)
    if manifest.fingerprint != inventory.fingerprint:
        raise DataError(
            f"holds the cohort '{manifest.name}' prepared from other sources or another YAML",
            where=str(out),
            fix="name another folder with --out, or remove this one",
        )
    PreparedCohort(out).verify()
    return manifest


def _keep_what_is_finished(out: Path, inventory: Inventory) -> None:
    """Keep finished shards only if they were made from the same sources by the same YAML, with the same columns."""
    for half_written in (out / "records").glob("*.partial"):
        half_written.unlink()
    begun = out / WORKING / "fingerprint"
    columns = record_features(inventory.spec, inventory.features).arrow_schema
    layout = f"{_shard_size(inventory)} records a shard\n{columns.to_string(show_schema_metadata=False)}"
    identity = f"{inventory.fingerprint}\n{layout}\n"
    if begun.is_file() and begun.read_text(encoding="utf-8") == identity:
        return
    for folder in (out / "records", out / WORKING / "reports"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    begun.write_text(identity, encoding="utf-8")


def _shard_size(inventory: Inventory) -> int:
    """Records per shard: enough shards to share among workers and to resume from, none of much more than SHARD_BYTES.

    A whole record counts, as if no patient lacked anything: where shards are fetched, the largest decides.
    """
    images = inventory.spec.images().values()
    record = sum(math.prod(i.size) * len(i.channels) * np.dtype(i.stored_as).itemsize for i in images)
    record += sum(4 * len(features) for features in inventory.features.values())
    for annotation in inventory.spec.annotations.values():
        record += len(annotation.regions) * -(-math.prod(inventory.spec.images()[annotation.image].size) // 8)
    fitting = max(1, SHARD_BYTES // max(1, record))
    return min(128, fitting, max(8, -(-len(inventory.records) // 64)))


def _write_shards(out: Path, inventory: Inventory, workers: int, progress: Progress) -> list[ShardReport]:
    size = _shard_size(inventory)
    shards = [inventory.records[start : start + size] for start in range(0, len(inventory.records), size)]
    features = record_features(inventory.spec, inventory.features)
    finished: dict[int, ShardReport] = {}
    patients = len({record.patient for record in inventory.records})
    progress.start("preparing", len(inventory.records), "patients" if patients == len(inventory.records) else "records")
    for number in range(len(shards)):
        if _shard_path(out, number).is_file() and _report_path(out, number).is_file():
            finished[number] = ShardReport.read(_report_path(out, number))
            progress.advance(finished[number].records, 0)
    waiting = {number: shard for number, shard in enumerate(shards) if number not in finished}
    for number, report in _run(out, inventory, waiting, features.arrow_schema, workers):
        finished[number] = report
        progress.advance(report.records, report.bytes_read)
        _stop_on_too_many_faults(out, inventory, list(finished.values()))
    progress.finish()
    paths = [_shard_path(out, number) for number in range(len(shards))]
    write_index(out / "records", features, paths, inventory.fingerprint)
    return [finished[number] for number in sorted(finished)]


def _shard_path(out: Path, number: int) -> Path:
    return out / "records" / f"part-{number:05d}.arrow"


def _report_path(out: Path, number: int) -> Path:
    return out / WORKING / "reports" / f"part-{number:05d}.json"


def _run(
    out: Path, inventory: Inventory, waiting: dict[int, list[RecordPlan]], schema: pa.Schema, workers: int
) -> Iterator[tuple[int, ShardReport]]:
    """Write shards, here or in worker processes; yields each as it is finished."""
    paths = {number: (_shard_path(out, number), _report_path(out, number)) for number in waiting}
    shared = (inventory.spec, inventory.tables, inventory.features, schema)
    workers = min(workers, len(waiting))
    if workers <= 1:
        writer = ShardWriter(*shared)
        for number, shard in waiting.items():
            yield number, writer.write(*paths[number], shard)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=shared)
    try:
        with _interrupts_held_back():
            futures = {pool.submit(work, *paths[number], shard): number for number, shard in waiting.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise ChiasmaError(
            "a worker process was ended from outside, most likely for want of memory",
            where=str(out),
            fix="run the same command with fewer --workers: what is finished is kept",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let workers start with interrupts blocked, which they inherit: Ctrl-C is for the main process to answer."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _all_faults(inventory: Inventory, reports: Sequence[ShardReport]) -> list[Fault]:
    return sorted(inventory.faults + [fault for report in reports for fault in report.faults])


def _stop_on_too_many_faults(out: Path, inventory: Inventory, reports: Sequence[ShardReport]) -> None:
    faults = _all_faults(inventory, reports)
    limit = inventory.spec.quarantine.stop_above
    for modality, number in sorted(Counter(fault.modality for fault in faults).items()):
        counted = inventory.counted[modality]
        if number <= limit * counted:
            continue
        listed = out / WORKING / "quarantine.tsv"
        _write_quarantine(listed, faults)
        first = next(fault for fault in faults if fault.modality == modality)
        named = " ".join(filter(None, (first.patient, first.item)))
        raise DataError(
            f"{number} of {counted} entries of '{modality}' cannot be used, more than "
            f"quarantine.stop_above = {limit:g} allows; first {named}: {first.reason}",
            where=str(listed),
            fix="read that list and mend the sources or the YAML, or raise quarantine.stop_above",
        )


def _write_quarantine(path: Path, faults: Sequence[Fault]) -> None:
    rows = ["\t".join(Fault._fields), *("\t".join(fault) for fault in faults)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _publish(out: Path, inventory: Inventory, reports: list[ShardReport], progress: Progress) -> Manifest:
    """Write everything beside the records; cohort.json comes last and makes the cohort complete."""
    faults = _all_faults(inventory, reports)
    _write_quarantine(out / "quarantine.tsv", faults)
    _write_json(out / "features.json", inventory.features)
    if inventory.folds:
        _write_json(out / "folds.json", inventory.folds)
    files = sorted({*inventory.table_files, *(row for report in reports for row in report.files)})
    rows = ["path\tbytes\tsha256", *(f"{name}\t{size}\t{digest}" for name, size, digest in files)]
    (out / "sources.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    shards = {_shard_path(out, n).name: report.shard for n, report in enumerate(reports) if report.shard is not None}
    beside = {name: Shard.of(out / name) for name in ("features.json", "folds.json") if (out / name).is_file()}
    beside[INDEX_FILE] = write_index_of(out / "records", list(shards))
    manifest = count(inventory, out, _sources(inventory, files), shards, beside, len(faults), _versions())
    manifest.remarks = _remarks(inventory, reports)
    partial = out / WORKING / FILE
    partial.write_text(manifest.to_json(), encoding="utf-8")
    progress.start("drawing the summary", None, "")
    write_summary(out, manifest)
    progress.finish()
    partial.replace(out / FILE)
    for leftover in (out / WORKING).iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name != "lock":
            leftover.unlink()
    return manifest


def _remarks(inventory: Inventory, reports: Sequence[ShardReport]) -> dict[str, dict[str, int]]:
    """What was done to each modality that a user should know, to how often; sorted."""
    summed: dict[str, Counter[str]] = {}
    for found in (inventory.remarks, *(report.remarks for report in reports)):
        for name, remarks in found.items():
            summed.setdefault(name, Counter()).update(remarks)
    return {name: dict(sorted(summed[name].items())) for name in sorted(summed) if summed[name]}


def _sources(inventory: Inventory, files: list[tuple[str, int, str]]) -> dict[str, Any]:
    tables = {name for name, _, _ in inventory.table_files}
    images = [row for row in files if row[0] not in tables]
    digest = hashlib.sha256(json.dumps(images).encode()).hexdigest()
    return {
        "tables": {
            name: {"bytes": size, "sha256": sha, **inventory.samples.get(name, {})}
            for name, size, sha in inventory.table_files
        },
        "images": {"files": len(images), "bytes": sum(size for _, size, _ in images), "sha256": digest},
        "other_channels": inventory.other_channels,
    }


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
