"""A finished run predicts other cohorts, in another process and without the cohort that it was trained on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from finetune.config import Network
from finetune.methods.adapted import EVERYTHING
from finetune.methods.choose import Learning
from finetune.methods.network import NetworkMethod
from finetune.predictor import ADAPTER, MODEL, NOTHING, Predictor
from finetune.run import finetune
from foundation.cohort.records import Record
from foundation.cohort.store import PreparedCohort
from foundation.data.scaling import fit_preprocessing
from foundation.errors import CheckpointError, DataError
from foundation.model import model_folder
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients

REPOSITORY = Path(__file__).parents[3]
FEATURES = {
    "rna": [f"G{number}" for number in range(16)],
    "mutation": [f"M{number}" for number in range(6)],
    "clinical": ["age", "grade"],
}
SEEN = ("rna", "clinical")
"""What the run may see: mutations define a label."""

ENDPOINTS = {
    "subtype": {"kind": "subtype", "classes": {"a": 0, "b": 0, "c": 0}},
    "os": {"kind": "survival", "unit": "days"},
    "pfs": {"kind": "survival", "unit": "months"},
    "recist": {"kind": "response", "classes": {"PD": 0, "SD": 0, "PR": 0, "CR": 0}},
    "idh": {"kind": "subtype", "classes": {"wildtype": 0, "mutant": 0}},
    "mgmt": {"kind": "subtype", "classes": {"no": 0, "yes": 0}},
    "drug": {"kind": "regression", "unit": "uM"},
}
TASKS = [
    {"task": "subtype", "endpoint": "subtype"},
    {"task": "survival", "endpoint": "os"},
    {"task": "survival", "endpoint": "pfs", "form": "intervals", "intervals": 4},
    {"task": "response", "endpoint": "recist"},
    {"task": "molecular", "endpoints": ["idh", "mgmt"]},
    {"task": "regression", "endpoint": "drug"},
]
COLUMNS = {
    "subtype/probability/a",
    "os/risk",
    "os/survival_probability/365.25",
    "pfs/risk",
    "pfs/survival_probability/12",
    "recist/probability/CR",
    "idh+mgmt/probability/mgmt",
    "drug/value",
}
TOWER = {"tower": "omics_transformer", "tokenizer": {"tokenizer": "chunk"}, "width": 8, "depth": 1, "heads": 2}
NETWORK = {
    "towers": {"genome": {**TOWER, "modalities": ["rna", "mutation"]}, "clinic": {**TOWER, "modalities": ["clinical"]}},
    "fusion": {"fusion": "gated_mean"},
    "width": 8,
}
CONFIG = {
    "cohort": "cohort",
    "out": "run",
    "seed": 1,
    "pretrain": "pretrained",
    "tasks": TASKS,
    "modalities": list(SEEN),
    "covariates": ["clinical"],
    "splits": {"folds": 2, "inner_folds": 2},
    "adapt": {"mode": "lora", "rank": 2, "alpha": 4},
    "fit": {"epochs": 2, "batch_size": 16, "optimiser": {"learning_rate": 1e-2}},
    "compare": [],
    "processes": 1,
}
ELSEWHERE = """
import sys
from pathlib import Path

import torch

from finetune.predictor import Predictor
from foundation.cohort.store import PreparedCohort

torch.set_num_threads(1)
run, out, *cohorts = map(Path, sys.argv[1:])
predictor = Predictor.read(run)
for cohort in cohorts:
    predictor.predict(PreparedCohort(cohort), subsets=[("rna",)]).to_parquet(out / f"{cohort.name}.parquet")
"""
"""What runs in a fresh process."""

Make = Callable[..., PreparedCohort]


def records_of(prefix: str, count: int, seed: int, groups: tuple[str, ...]) -> list[Record]:
    """A factor in rna decides every outcome; anything may be missing."""
    random = np.random.default_rng(seed)
    loading = np.random.default_rng(9).standard_normal(len(FEATURES["rna"]))
    records = []
    for number in range(count):
        factor = random.standard_normal()
        omics = {
            "rna": (5 + factor * loading + random.standard_normal(len(loading))).astype(np.float32),
            "mutation": (random.random(len(FEATURES["mutation"])) < 0.3).astype(np.float32),
            "clinical": np.array([60 + 10 * random.standard_normal(), random.integers(1, 4)], dtype=np.float32),
        }
        endpoints: dict[str, float | int] = {
            "subtype": int(np.searchsorted([-0.5, 0.5], factor)),
            "recist": int(np.searchsorted([-0.7, 0.0, 0.7], factor + 0.5 * random.standard_normal())),
            "idh": int(factor + random.standard_normal() > 0),
            "mgmt": int(factor < random.standard_normal()),
            "drug": float(3 + factor + 0.3 * random.standard_normal()),
        }
        for name, mean in (("os", 900.0), ("pfs", 20.0)):
            died, lost = random.exponential(mean * np.exp(-factor)), random.exponential(1.5 * mean)
            endpoints |= {f"{name}/time": min(died, lost), f"{name}/event": int(died <= lost)}
        has = random.random(3) < 0.75
        records.append(
            Record(
                patient=f"{prefix}{number:03d}",
                site="A",
                group=groups[number % len(groups)],
                omics={name: values for (name, values), there in zip(omics.items(), has, strict=True) if there},
                endpoints={name: value for name, value in endpoints.items() if "/" in name or random.random() < 0.85},
            )
        )
    return records


def without(records: list[Record], *names: str) -> list[Record]:
    """The same patients, who lack some modalities."""
    return [replace(r, omics={n: v for n, v in r.omics.items() if n not in names}) for r in records]


@dataclass(frozen=True)
class Finished:
    """A run, what predicted in the process that trained it, and cohorts of other patients."""

    run: Path
    predictor: Predictor
    cohorts: dict[str, Path]
    elsewhere: Path


@pytest.fixture(scope="module")
def finished(make_cohort: Make, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run whose training cohort and base are gone; a fresh process has predicted every other cohort with it."""
    folder = tmp_path_factory.mktemp("predictor")
    cohort = make_cohort(folder / "cohort", records_of("P", 60, 0, ("glioma", "lung")), FEATURES, ENDPOINTS)
    network = Network.model_validate(NETWORK)
    preprocessing = fit_preprocessing(cohort, np.arange(len(cohort)), network.preprocessing)
    torch.manual_seed(0)
    settings = MultimodalConfig.of(preprocessing.described(), network.towers, network.fusion, network.width)
    model_folder.write(
        folder / "pretrained", MultimodalModel(settings), preprocessing, "A small one.\n", SeenPatients.of(["X"])
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    trained: list[Predictor] = []
    keep = NetworkMethod._keep

    def remember(self, fold, place, trainee) -> None:
        trained.append(Predictor(trainee.adapted, trainee.tasks, self.base.preprocessing, self.study.modalities))
        keep(self, fold, place, trainee)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkMethod, "_keep", remember)
        # Whatever inner folds of so few would choose, it is trained: what comes back must be more than the base.
        patch.setattr(
            Learning, "_values", lambda self, _, said: dict.fromkeys(self.study.weights, np.arange(len(said))[None])
        )
        metrics, run = finetune(folder / "config.yaml")
    assert [choice["epochs"] for choice in metrics["chosen"] if choice["fold"] == "all"] == [2]
    cohorts = other_cohorts(make_cohort, folder)
    # A run folder is all that is needed, wherever it is.
    moved = Path(shutil.move(run, tmp_path_factory.mktemp("elsewhere") / "run"))
    shutil.rmtree(folder / "cohort")
    shutil.rmtree(folder / "pretrained")
    shutil.rmtree(moved / "folds")
    return Finished(moved, trained[-1], cohorts, predict_elsewhere(moved, list(cohorts.values())))


def other_cohorts(make_cohort: Make, folder: Path) -> dict[str, Path]:
    """Patients whom the run has never met, in cohorts that are not quite like the one it was trained on."""
    records = records_of("Q", 40, 1, ("lung", "sarcoma"))
    order = np.random.default_rng(2).permutation(len(FEATURES["rna"]))
    shuffled = {**FEATURES, "rna": ["other", *(FEATURES["rna"][place] for place in order)]}
    moved = [
        replace(r, omics={n: np.append(np.float32(99), v[order]) if n == "rna" else v for n, v in r.omics.items()})
        for r in records
    ]
    no_endpoints = [replace(r, endpoints={}) for r in records]
    few = {name: FEATURES[name] for name in ("rna", "mutation")}
    cohorts = {
        "alike": (records, FEATURES, ENDPOINTS),
        "other_order": (moved, shuffled, ENDPOINTS),
        "no_clinical": (without(records, "clinical"), few, ENDPOINTS),
        "no_endpoints": (no_endpoints, FEATURES, {}),
    }
    return {name: make_cohort(folder / name, *parts).path for name, parts in cohorts.items()}


def predict_elsewhere(run: Path, cohorts: list[Path]) -> Path:
    out = run.parent / "predictions"
    out.mkdir()
    command = [sys.executable, "-c", ELSEWHERE, str(run), str(out), *map(str, cohorts)]
    done = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0
    return out


COHORTS = ["alike", "other_order", "no_clinical", "no_endpoints"]


@pytest.mark.parametrize("name", COHORTS)
def test_a_fresh_process_predicts_other_patients_to_the_bit(finished, name):
    there = pd.read_parquet(finished.elsewhere / f"{name}.parquet")
    here = finished.predictor.predict(PreparedCohort(finished.cohorts[name]), subsets=[("rna",)])
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    assert set(there) >= {"row", "seen", "modalities", *COLUMNS}
    everything = there[there["seen"] == EVERYTHING]
    assert everything["row"].tolist() == list(range(40))
    assert np.isfinite(there.filter(like="/").to_numpy()).all()
    for column in COLUMNS:
        assert everything[column].nunique() > 10, f"{column} is the same for everybody"


def test_the_order_of_features_and_unknown_ones_change_nothing(finished):
    tables = [pd.read_parquet(finished.elsewhere / f"{name}.parquet") for name in ("alike", "other_order")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_nobody_needs_an_outcome_to_be_predicted(finished):
    tables = [pd.read_parquet(finished.elsewhere / f"{name}.parquet") for name in ("alike", "no_endpoints")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_group_has_its_own_baseline_hazard_and_an_unknown_one_that_of_all(finished, make_cohort, tmp_path):
    records = records_of("R", 4, 3, ("lung",))

    def survival(group: str) -> np.ndarray:
        cohort = make_cohort(tmp_path / group, [replace(r, group=group) for r in records], FEATURES, {})
        frame = Predictor.read(finished.run).predict(cohort)
        return frame[["os/survival_probability/365.25", "pfs/survival_probability/12"]].to_numpy()

    of_groups = {group: survival(group) for group in ("lung", "glioma", "sarcoma", "kidney")}
    assert np.array_equal(of_groups["sarcoma"], of_groups["kidney"])
    for one, other in (("lung", "glioma"), ("lung", "sarcoma"), ("glioma", "sarcoma")):
        assert (of_groups[one] != of_groups[other]).all()


def test_the_adapter_says_all_that_predicting_needs_and_counts_nobody(finished):
    document = json.loads((finished.run / ADAPTER / "adapter.json").read_text())
    assert document["modalities"] == list(SEEN) and document["reading"]["covariates"] == list(SEEN)
    assert document["groups"] == ["glioma", "lung"]
    assert [task["task"] for task in document["tasks"]] == [task["task"] for task in TASKS]
    assert document["endpoints"]["recist"] == {"kind": "response", "classes": ["PD", "SD", "PR", "CR"]}
    assert document["endpoints"]["pfs"] == {"kind": "survival", "unit": "months"}
    predictor = Predictor.read(finished.run)
    assert predictor.modalities == SEEN
    assert list(predictor.tasks) == ["subtype", "os", "pfs", "recist", "idh+mgmt", "drug"]
    trained, base = SeenPatients.read(finished.run / ADAPTER), SeenPatients.read(finished.run / MODEL)
    assert trained is not None and base is not None
    assert trained.among([f"P{number:03d}" for number in range(60)]).sum() > 50
    assert not trained.among([f"Q{number:03d}" for number in range(40)]).any()
    assert base.among(["X", "P000"]).tolist() == [True, False]


def test_nothing_of_training_patients_is_kept_but_what_tasks_have_learned(finished):
    tensors = load_file(finished.run / ADAPTER / "adapter.safetensors")
    assert not any(len(tensor) for name, tensor in tensors.items() if ".recent_" in name)
    assert len(tensors["tasks.pfs.cuts"]) > 2 and len(tensors["tasks.os.baseline"]) == 3


def test_what_may_not_be_seen_is_not_read(finished, make_cohort, tmp_path):
    records = records_of("Q", 40, 1, ("lung", "sarcoma"))
    rotated = [records[(place + 1) % 40].omics.get("mutation") for place in range(40)]
    others = [
        replace(r, omics={**without([r], "mutation")[0].omics, **({} if values is None else {"mutation": values})})
        for r, values in zip(records, rotated, strict=True)
    ]
    predictor = Predictor.read(finished.run)
    found = predictor.predict(make_cohort(tmp_path / "others", others, FEATURES, {}))
    expected = predictor.predict(PreparedCohort(finished.cohorts["alike"]))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert set(found["modalities"]) == {"rna", "clinical", "rna+clinical", NOTHING}
    aligned = predictor.align(PreparedCohort(finished.cohorts["alike"]))
    assert not aligned.presence(np.arange(40))[0][:, aligned.modalities.index("mutation")].any()


def test_modalities_are_those_that_were_read(finished, make_cohort, tmp_path):
    """A row without a single measured feature that the model knows was not read, whatever the table says."""
    rna = [*FEATURES["rna"][:12], "unknown1", "unknown2"]
    features = {**FEATURES, "rna": rna}
    random = np.random.default_rng(4)
    values, unmeasured = random.standard_normal((2, len(rna))).astype(np.float32)
    one, unknown = (np.full(len(rna), np.nan, np.float32) for _ in range(2))
    one[11], unknown[12:] = 0.0, 7.0
    unmeasured[:] = np.nan
    clinical = np.array([50, 2], np.float32)
    cases = {
        "rna+clinical": {"rna": values, "clinical": clinical},
        # A measured zero is a value, unlike one that was not measured.
        "rna": {"rna": one, "clinical": np.full(2, np.nan, np.float32)},
        "clinical": {"rna": unmeasured, "clinical": clinical},
        "clinical ": {"rna": unknown, "clinical": clinical},
        "clinical  ": {"clinical": clinical},
        NOTHING: {"rna": unknown},
        f"{NOTHING} ": {},
    }
    records = [Record(patient=f"R{place}", omics=dict(omics)) for place, omics in enumerate(cases.values())]
    cohort = make_cohort(tmp_path / "cohort", records, features, {})
    frame = Predictor.read(finished.run).predict(cohort, subsets=[("rna",), SEEN])
    everything = frame[frame["seen"] == EVERYTHING].drop(columns=["row", "seen"])
    assert everything["modalities"].tolist() == [name.strip() for name in cases]
    for same in ([2, 3, 4], [5, 6]):
        pd.testing.assert_frame_equal(
            everything.iloc[same].reset_index(drop=True),
            everything.iloc[[same[-1]] * len(same)].reset_index(drop=True),
            atol=1e-6,
        )
    assert frame[frame["seen"] == "rna"]["row"].tolist() == [0, 1]
    assert frame[frame["seen"] == "rna+clinical"]["row"].tolist() == [0]


@pytest.mark.parametrize("subset", [("rna",), ("clinical",), SEEN], ids="+".join)
def test_a_subset_alone_is_predicted_as_if_the_rest_were_absent(finished, make_cohort, tmp_path, subset):
    records = records_of("Q", 40, 1, ("lung", "sarcoma"))
    rest = [name for name in FEATURES if name not in subset]
    alone = make_cohort(tmp_path / "alone", without(records, *rest), FEATURES, {})
    predictor = Predictor.read(finished.run)
    frame = predictor.predict(PreparedCohort(finished.cohorts["alike"]), subsets=[("rna",), ("clinical",), SEEN])
    found = frame[frame["seen"] == "+".join(subset)]
    rows = [place for place, record in enumerate(records) if set(subset) <= set(record.omics)]
    assert found["row"].tolist() == rows and 0 < len(rows) < 40
    expected = predictor.predict(alone)
    expected = expected[expected["row"].isin(rows)]
    outputs = [column for column in frame if "/" in column]
    # Exponentials of the last few rows of a table may be rounded in another way than those of the first.
    pd.testing.assert_frame_equal(
        found[outputs].reset_index(drop=True), expected[outputs].reset_index(drop=True), rtol=1e-14
    )
    if len(subset) == 1:
        both = found["modalities"] == "rna+clinical"
        seen_all = frame[(frame["seen"] == EVERYTHING) & frame["row"].isin(found[both]["row"])]
        assert both.any()
        assert (seen_all[outputs].to_numpy() != found[both][outputs].to_numpy()).any(axis=1).all()


def spoil_tensors(run: Path) -> None:
    path = run / ADAPTER / "adapter.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def another_base(run: Path) -> None:
    """The weights of the base with one number changed."""
    path = run / MODEL / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith("projections."))
    tensors[name] = tensors[name] + 1e-6
    save_file(tensors, path, metadata={"format": "pt"})
    (run / MODEL / model_folder.HASHES).unlink()


def change_tasks(run: Path) -> None:
    path = run / ADAPTER / "adapter.json"
    document = json.loads(path.read_text())
    document["tasks"][0] = {"task": "response", "endpoint": "subtype"}
    document["endpoints"]["subtype"]["kind"] = "response"
    path.write_text(json.dumps(document))


REFUSED = {
    "damaged adapter": (spoil_tensors, "adapter.safetensors is damaged", "copy the folder again"),
    "no document": (lambda run: (run / ADAPTER / "adapter.json").unlink(), "has no adapter.json", "adapter"),
    "document cut": (lambda run: (run / ADAPTER / "adapter.json").write_text("{"), "adapter.json is damaged", "copy"),
    "other tasks": (change_tasks, "does not fit", "the version of chiasma that wrote it"),
    "another base": (another_base, "belongs to another model", "load the model that it was made from"),
    "no model": (lambda run: shutil.rmtree(run / MODEL), "it has no folder `model`", "final: true"),
    "no adapter": (lambda run: shutil.rmtree(run / ADAPTER), "it has no folder `adapter`", "final: true"),
    "no run": (shutil.rmtree, "it has no folder `model`", "name the folder of a fine-tuning run"),
    "no weights": (lambda run: (run / MODEL / "model.safetensors").unlink(), "has no model.safetensors", "model"),
}


@pytest.mark.parametrize(("spoil", "what", "fix"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_predict_is_refused_in_clear_words(finished, tmp_path, spoil, what, fix):
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    spoil(run)
    with pytest.raises(CheckpointError) as caught:
        Predictor.read(run)
    assert what in caught.value.what and fix in str(caught.value.fix) and str(run) in str(caught.value.where)


def test_a_cohort_that_shares_too_little_is_refused(finished, make_cohort, tmp_path):
    few = {"rna": FEATURES["rna"][:4]}
    records = [Record(patient="R", omics={"rna": np.ones(4, np.float32)})]
    with pytest.raises(DataError, match=r"'rna' has 25.0% of the 16 features"):
        Predictor.read(finished.run).predict(make_cohort(tmp_path / "cohort", records, few, {}))
