"""Small prepared cohorts, written with the store's own writers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from foundation.cohort.manifest import FILE, AnnotationEntry, ImageEntry, Manifest, OmicsEntry
from foundation.cohort.records import Image, Record, record_features, write_index, write_shard
from foundation.cohort.store import PreparedCohort
from foundation.modality import Percentile, Window

MRI_SHAPE = (6, 5, 4)
CT_SHAPE = (7, 3)
GENES = [f"G{i}" for i in range(12)]
MUTATIONS = [f"M{i}" for i in range(5)]


def write_cohort(
    folder: Path,
    records: list[Record],
    modalities: dict[str, ImageEntry | OmicsEntry],
    features: dict[str, list[str]],
    endpoints: dict[str, str],
    shards: int = 3,
    annotations: dict[str, AnnotationEntry] | None = None,
) -> PreparedCohort:
    """Write records as a prepared cohort and open it; `endpoints` maps a name to its kind."""
    annotations = annotations or {}
    images = {n: SimpleNamespace(channels=list(m.channels)) for n, m in modalities.items() if m.kind == "image"}
    spec = SimpleNamespace(
        images=lambda: images,
        omics=lambda: features,
        endpoints={name: SimpleNamespace(kind=kind) for name, kind in endpoints.items()},
        annotations=annotations,
    )
    schema = record_features(spec, features)
    place = folder / "records"
    place.mkdir(parents=True)
    pieces = np.array_split(np.arange(len(records)), shards)
    paths = [place / f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    for path, piece in zip(paths, pieces, strict=True):
        write_shard(path, schema.arrow_schema, [records[i] for i in piece])
    write_index(place, schema, paths, "0" * 64)
    manifest = Manifest(
        name="small",
        patients=len({r.patient for r in records}),
        records=len(records),
        modalities=modalities,
        patterns={},
        endpoints={name: {"kind": kind} for name, kind in endpoints.items()},
        sites={},
        groups={},
        annotations=annotations,
        folds={},
        sources={},
        quarantined=0,
        versions={},
        fingerprint="0" * 64,
    )
    (folder / FILE).write_text(manifest.to_json(), encoding="utf-8")
    (folder / "features.json").write_text(json.dumps(features), encoding="utf-8")
    return PreparedCohort(folder)


def image(voxels: np.ndarray, acquired: list[bool], window: tuple[float, float] | None = None) -> Image:
    """An image with the statistics that preparation stores: low, high, mean, std; NaN for absent channels."""
    statistics = np.full((len(voxels), 4), np.nan, dtype=np.float32)
    for c in np.flatnonzero(acquired):
        values = voxels[c].astype(np.float64)
        low, high = window or np.percentile(values, [0.5, 99.5])
        clipped = np.clip(values, low, high)
        statistics[c] = low, high, clipped.mean(), clipped.std()
    voxels[~np.array(acquired)] = 0
    return Image(voxels, np.array(acquired), statistics)


def small_modalities() -> dict[str, ImageEntry | OmicsEntry]:
    """Entries of cohort.json for the modalities of `small_records`."""
    return {
        "mri": ImageEntry(
            patients=0,
            shape=list(MRI_SHAPE),
            channels={"t1": 0, "t2": 0},
            orientation="RAS",
            spacing=(1.0, 1.0, 2.0),
            intensity=Percentile(rule="percentile"),
            stored_as="float32",
            mirror=["x"],
        ),
        "ct": ImageEntry(
            patients=0,
            shape=list(CT_SHAPE),
            channels={"ct": 0},
            orientation="RAS",
            spacing="native",
            intensity=Window(rule="window", unit="HU", low=-1000, high=400),
            stored_as="int16",
            mirror=[],
        ),
        "rna": OmicsEntry(patients=0, features=len(GENES), values="continuous", unit="log2 TPM", transform=["log2p1"]),
        "mut": OmicsEntry(patients=0, features=len(MUTATIONS), values="binary", unit="", transform=[]),
    }


def small_records(count: int, seed: int = 0) -> list[Record]:
    """Records with random presence of everything; every eighth patient has two time points."""
    random = np.random.default_rng(seed)
    records = []
    for i in range(count):
        second = i % 8 == 7
        record = Record(
            patient=f"P{i - second:04d}",
            time_point="2" if second else ("1" if i % 8 == 6 else ""),
            site=[None, "A", "B"][i % 3],
            group=None,
            endpoints={},
        )
        if random.random() < 0.7:
            acquired = [[True, True], [True, False], [False, True]][random.integers(3)]
            voxels = random.gamma(2.0, 100.0 * (1 + i % 5), size=(2, *MRI_SHAPE)).astype(np.float32)
            record.images["mri"] = image(voxels, acquired)
        if random.random() < 0.5:
            voxels = random.integers(-1024, 1500, size=(1, *CT_SHAPE)).astype(np.int16)
            record.images["ct"] = image(voxels, [True], window=(-1000.0, 400.0))
        if random.random() < 0.7:
            values = random.normal(5, 3, len(GENES)).astype(np.float32)
            values[random.random(len(GENES)) < 0.2] = np.nan
            record.omics["rna"] = values
        if random.random() < 0.7:
            record.omics["mut"] = random.integers(0, 2, len(MUTATIONS)).astype(np.float32)
        if random.random() < 0.8:
            record.endpoints = {"subtype": int(i % 3), "os/time": float(i), "os/event": int(i % 2), "dose": i / 4}
        records.append(record)
    return records


ENDPOINTS = {"subtype": "subtype", "os": "survival", "dose": "regression"}
FEATURES = {"rna": GENES, "mut": MUTATIONS}


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., PreparedCohort]:
    """Write a small cohort; `change` edits records, entries and feature names before they are written."""
    made = 0

    def make(
        count: int = 40,
        seed: int = 0,
        change: Callable[[list[Record], dict[str, ImageEntry | OmicsEntry], dict[str, list[str]]], None] | None = None,
    ) -> PreparedCohort:
        nonlocal made
        made += 1
        records, modalities, features = small_records(count, seed), small_modalities(), dict(FEATURES)
        if change is not None:
            change(records, modalities, features)
        return write_cohort(tmp_path / f"cohort{made}", records, modalities, features, ENDPOINTS)

    return make


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    """Forty records, read-only, shared by all tests."""
    folder = tmp_path_factory.mktemp("small") / "cohort"
    return write_cohort(folder, small_records(40), small_modalities(), FEATURES, ENDPOINTS)


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """How the small cohort is made: its records, and how they are written and opened."""

    def write(folder: Path, records: list[Record]) -> PreparedCohort:
        return write_cohort(folder, records, small_modalities(), FEATURES, ENDPOINTS)

    return SimpleNamespace(records=small_records, write=write)
