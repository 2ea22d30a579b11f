"""A small cohort without images, by the store's own writers, and a model that has seen some of its patients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from finetune.config import Network
from finetune.run import finetune
from foundation.cohort.manifest import FILE, Manifest, OmicsEntry, Shard
from foundation.cohort.records import Record, record_features, write_index, write_shard
from foundation.cohort.store import PreparedCohort
from foundation.data.scaling import fit_preprocessing
from foundation.model import model_folder
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients

PATIENTS, SEEN = 60, 12
FEATURES = {
    "rna": [f"G{number}" for number in range(16)],
    "mutation": [f"M{number}" for number in range(6)],
    "clinical": ["age", "grade"],
}
KINDS = {"rna": "continuous", "mutation": "binary", "clinical": "continuous"}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "subtype": {"kind": "subtype", "classes": {"a": 0, "b": 0, "c": 0}},
    "os": {"kind": "survival", "unit": "days"},
    "age": {"kind": "regression", "unit": "years"},
}
NETWORK = {
    "towers": {
        "omics": {"tower": "omics_transformer", "tokenizer": {"tokenizer": "chunk"}, "width": 8, "depth": 1, "heads": 2}
    },
    "fusion": {"fusion": "gated_mean"},
    "width": 8,
}
CONFIG = """
cohort: cohort
out: run
seed: 1
pretrain: model
tasks:
  - {task: subtype, endpoint: subtype}
  - {task: survival, endpoint: os}
splits: {folds: 2, inner_folds: 2}
reads: [values]
adapt: {mode: lora, rank: 2, alpha: 4}
fit: {epochs: 1, batch_size: 16}
compare: []
final: false
processes: 1
"""
PRETRAINING = {
    **NETWORK,
    "cohort": "decided by the fold",
    "out": "decided by the fold",
    "objectives": {"contrast": {"loss": {"objective": "infonce"}}},
    "epochs": 1,
    "batch_size": 24,
    "permutations": 100,
}


def small_records() -> list[Record]:
    """A factor in rna decides class and survival; everything may be missing; every tenth patient came twice."""
    random = np.random.default_rng(0)
    loading = random.standard_normal(len(FEATURES["rna"]))
    records = []
    for number in range(PATIENTS):
        factor = random.standard_normal()
        died, lost = random.exponential(900 * np.exp(-factor)), random.exponential(1500)
        omics = {
            "rna": (5 + factor * loading + random.standard_normal(len(loading))).astype(np.float32),
            "mutation": (random.random(len(FEATURES["mutation"])) < 0.3).astype(np.float32),
            "clinical": np.array([60 + 10 * random.standard_normal(), random.integers(1, 4)], dtype=np.float32),
        }
        has = (random.random(3) < 0.75) & (number % 20 != 19)
        omics = {name: values for (name, values), there in zip(omics.items(), has, strict=True) if there}
        endpoints: dict[str, Any] = {}
        if random.random() < 0.85:
            endpoints["subtype"] = int(np.searchsorted([-0.5, 0.5], factor + 0.3 * random.standard_normal()))
        if random.random() < 0.85:
            endpoints |= {"os/time": float(min(died, lost)), "os/event": int(died <= lost)}
        for time_point in ("1", "2") if number % 10 == 3 else ("",):
            records.append(
                Record(
                    patient=f"P{number:03d}",
                    time_point=time_point,
                    site="A",
                    group=None,
                    omics=dict(omics),
                    endpoints=dict(endpoints),
                )
            )
    return records


def write_cohort(
    folder: Path,
    records: Sequence[Record] | None = None,
    features: Mapping[str, list[str]] = FEATURES,
    endpoints: Mapping[str, dict[str, Any]] = ENDPOINTS,
) -> PreparedCohort:
    """Write records as a prepared cohort; by default the small ones."""
    spec = SimpleNamespace(
        images=dict,
        omics=lambda: features,
        annotations={},
        endpoints={name: SimpleNamespace(kind=entry["kind"]) for name, entry in endpoints.items()},
    )
    schema = record_features(spec, features)
    place = folder / "records"
    place.mkdir(parents=True)
    path = place / "data-00000-of-00001.arrow"
    records = small_records() if records is None else records
    write_shard(path, schema.arrow_schema, records)
    write_index(place, schema, [path], "0" * 64)
    (folder / "features.json").write_text(json.dumps(features), encoding="utf-8")
    # Published folds, of which each tests some whom the model has seen.
    names = sorted({record.patient for record in records})
    folds = {str(k): {name: "val" if i % 3 == k else "train" for i, name in enumerate(names)} for k in range(2)}
    (folder / "folds.json").write_text(json.dumps(folds), encoding="utf-8")
    nothing: dict[str, Any] = {name: {} for name in ("patterns", "sites", "groups", "folds", "sources", "versions")}
    manifest = Manifest(
        name="small",
        patients=len({record.patient for record in records}),
        records=len(records),
        modalities={
            name: OmicsEntry(
                patients=0, features=len(names), values=KINDS.get(name, "continuous"), unit="", transform=[]
            )
            for name, names in features.items()
        },
        endpoints=dict(endpoints),
        quarantined=0,
        fingerprint="0" * 64,
        shards={path.name: Shard.of(path)},
        files={name: Shard.of(folder / name) for name in ("features.json", "folds.json")},
        **nothing,
    )
    (folder / FILE).write_text(manifest.to_json(), encoding="utf-8")
    return PreparedCohort(folder)


@pytest.fixture(scope="session")
def make_cohort() -> Callable[..., PreparedCohort]:
    """`write_cohort`, which test modules cannot import."""
    return write_cohort


@pytest.fixture
def records() -> list[Record]:
    """`small_records`, to be changed."""
    return small_records()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_model(folder: Path, cohort: PreparedCohort, modalities: list[str] | None = None) -> None:
    """Write a model that has seen some patients of a cohort, and knows some modalities of it; by default all."""
    network = Network.model_validate({**NETWORK, "preprocessing": {"modalities": modalities}})
    names = np.unique(cohort.patients.astype(str))[:SEEN]
    rows = np.flatnonzero(np.isin(cohort.patients.astype(str), names))
    preprocessing = fit_preprocessing(cohort, rows, network.preprocessing)
    torch.manual_seed(0)
    model = MultimodalModel(
        MultimodalConfig.of(preprocessing.described(), network.towers, network.fusion, network.width)
    )
    model_folder.write(folder, model, preprocessing, "A small one.\n", SeenPatients.of(names))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., None]:
    """`write_model`, which test modules cannot import."""
    return write_model


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cohort``, ``config.yaml``, ``pretraining.yaml`` and two models, which nobody writes to.

    ``model`` knows all modalities of the cohort, ``model_without_clinical`` all but one.
    """
    folder = tmp_path_factory.mktemp("finetune")
    cohort = write_cohort(folder / "cohort")
    write_model(folder / "model", cohort)
    write_model(folder / "model_without_clinical", cohort, ["rna", "mutation"])
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "pretraining.yaml").write_text(yaml.safe_dump(PRETRAINING), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def cohort(workplace: Path) -> PreparedCohort:
    return PreparedCohort(workplace / "cohort")


@pytest.fixture(scope="session")
def seen(cohort: PreparedCohort) -> set[str]:
    """Patients whom the model of the workplace was pretrained on."""
    return set(np.unique(cohort.patients.astype(str))[:SEEN])


@pytest.fixture(scope="session")
def untrained() -> list[str]:
    """Changes to config.yaml for a network that was not pretrained."""
    return ["pretrain=none", f"network={json.dumps(NETWORK)}", "adapt={mode: scratch}"]


Tune = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture
def tune(workplace: Path, tmp_path: Path) -> Tune:
    """Fine-tunes with changes to config.yaml, each time in a folder of its own unless ``out`` is given."""
    made = 0

    def run(*changes: str, **arguments: Any) -> tuple[dict[str, Any], Path]:
        nonlocal made
        made += 1
        return finetune(workplace / "config.yaml", [f"out={tmp_path / f'run{made}'}", *changes], **arguments)

    return run
