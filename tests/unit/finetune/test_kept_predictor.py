"""What a run keeps: chosen within training patients, read back elsewhere, the weighted sum of its methods."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import recall_score

from finetune import kept_predictor
from finetune.fold import FINAL, LINEAR, Method
from finetune.kept_predictor import DOCUMENT, TENSORS, Document, KeptPredictor, gather
from finetune.methods.held_out import TESTED, HeldOut
from finetune.methods.linear import MODELS
from finetune.methods.linear_model import LinearModel
from finetune.predictor import Predictor
from finetune.report.answer import named
from finetune.run import finetune
from foundation.cohort.store import PreparedCohort
from foundation.errors import CheckpointError

WEIGHTS = {
    "subtype": {"ours": 0.4, "frozen probe": 0.3, "from scratch": 0.2, "clinical + omics": 0.5},
    "os": {"omics": 0.7, "ours": 0.2},
}


@pytest.fixture(scope="module")
def run(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "run"
    finetune(workplace / "config.yaml", [f"out={folder}", "final=true", "compare=[from scratch, frozen probe]"])
    return folder


@pytest.fixture(scope="module")
def mixed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, as if all kinds of methods had been chosen."""
    moved = Path(shutil.copytree(run, tmp_path_factory.mktemp("mixed") / "moved"))
    final = moved / "folds" / FINAL
    document = Document.model_validate_json((final / "kept" / DOCUMENT).read_bytes())
    document.model_copy(update={"weights": WEIGHTS}).write(final / "kept" / DOCUMENT)
    gather(
        moved,
        final / "kept",
        {name: final / name.replace(" ", "-") / "adapter" for name in ("frozen probe", "from scratch")},
        final / Method(LINEAR).folder / MODELS,
    )
    shutil.rmtree(moved / "folds")
    return moved


def test_what_is_kept_is_reported_on_the_outer_folds_as_one_more_method(run, cohort):
    metrics = json.loads((run / "metrics.json").read_text())
    table = pd.read_parquet(run / "predictions.parquet")
    kept = metrics["kept"]
    rows = np.array([np.flatnonzero(cohort.patients == patient)[0] for patient in table["patient"]])
    code = cohort.endpoint("subtype")["code"][rows]
    said = table[[f"kept/subtype/probability/{name}" for name in "abc"]].to_numpy()
    np.testing.assert_allclose(said.sum(axis=1), 1)
    for fold in kept["folds"]:
        here = (table["fold"] == fold["fold"]).to_numpy() & (code >= 0)
        right = recall_score(code[here], said[here].argmax(axis=1), labels=[0, 1, 2], average="macro")
        assert fold["value"] == pytest.approx(right)
    assert kept["mean"] == pytest.approx(np.mean([fold["value"] for fold in kept["folds"]]))
    networks = {"ours", "frozen probe", "from scratch"}
    documents = [json.loads((run / "folds" / fold / "kept" / "kept.json").read_text()) for fold in ("0", "1", FINAL)]
    made = [named(document["subtype"]["weights"]) for document in documents]
    assert sum(choice["folds"] for choice in kept["choices"]) == 2
    assert all(choice["folds"] == made[:2].count(choice["methods"]) for choice in kept["choices"])
    assert kept["for_new_patients"] == made[2]
    assert set(kept["of"]) <= networks | {"clinical", "omics", "clinical + omics"} and kept["of"]
    without = json.loads((run / "folds" / "0" / "kept-without-pretraining" / "kept.json").read_text())["subtype"]
    assert (
        not set(without["cv_log_likelihood"]) & {"ours", "frozen probe"}
        and "from scratch" in without["cv_log_likelihood"]
    )
    assert kept["differences"].keys() == {"ours", *metrics["baselines"]}
    [survival] = metrics["other_tasks"]
    assert {"c_index", "integrated_brier"} <= survival["kept"]["metrics"].keys()
    assert "the kept predictor" in (run / "report.html").read_text()


def test_of_training_patients_only_those_speak_who_taught_nothing(run, cohort):
    """Every training patient is held out by one inner fold; the test patients by none."""
    for fold in ("0", "1"):
        for name in ("ours/held_out", "frozen-probe/held_out", "linear-baselines/omics"):
            found = HeldOut.read(run / "folds" / fold / f"{name}.safetensors")
            tested = pd.read_parquet(run / "folds" / fold / "kept" / "predictions.parquet")["row"]
            np.testing.assert_array_equal(np.sort(found.rows[found.inner == TESTED]), np.sort(tested))
            assert len(np.unique(found.rows)) == len(found.rows) and set(found.inner) == {TESTED, 0, 1}
            patients = cohort.patients[found.rows]
            assert not set(patients[found.inner == TESTED]) & set(patients[found.inner != TESTED])


def test_it_predicts_as_the_sum_of_its_methods(mixed, cohort):
    kept = KeptPredictor.read(mixed, torch.device("cpu"))
    rows = np.arange(20)
    found = kept.predict(cohort, rows)
    ours = Predictor.read(mixed, torch.device("cpu"))
    said = {"ours": ours.outputs(ours.align(cohort), rows)}
    for name, place in (("frozen probe", "probe"), ("from scratch", "scratch")):
        network = Predictor.read(mixed, torch.device("cpu"), adapter=Path("kept", place))
        said[name] = network.outputs(network.align(cohort), rows)
    linear = LinearModel.read(mixed / "kept" / "linear" / "clinical + omics" / "subtype").predict(cohort, rows)
    logits = sum(WEIGHTS["subtype"][name] * said[name]["subtype"].double() for name in said)
    logits = logits + 0.5 * torch.from_numpy(np.log(linear["probability"]))
    names = [f"subtype/probability/{name}" for name in "abc"]
    np.testing.assert_allclose(found[names].to_numpy(), logits.softmax(dim=1).numpy(), rtol=1e-6)
    risk = LinearModel.read(mixed / "kept" / "linear" / "omics" / "os").predict(cohort, rows)["risk"]
    expected = 0.7 * risk + 0.2 * said["ours"]["os"][:, 0].double().numpy()
    np.testing.assert_allclose(found["os/risk"], expected, rtol=1e-6)
    free = found[[name for name in found.columns if "survival_probability" in name]].to_numpy()
    assert ((free > 0) & (free < 1)).all() and (np.diff(free, axis=1) <= 0).all()


def test_nothing_is_said_of_who_has_nothing_that_may_be_read(mixed, cohort):
    kept = replace(KeptPredictor.read(mixed, torch.device("cpu")), modalities=("rna",))
    rows = np.arange(len(cohort))
    has_N = cohort.present_NM[:, cohort.modalities.index("rna")]
    found = kept.predict(cohort, rows)
    assert 0 < has_N.sum() < len(rows)
    np.testing.assert_array_equal(found["patient"], cohort.patients.astype(str))
    assert set(found["modalities"][has_N]) == {"rna"} and set(found["modalities"][~has_N]) == {"none"}
    said = found.filter(regex="probability|calibrated|earliest|survival_low")
    assert said[has_N].notna().all(axis=None) and said[~has_N].isna().all(axis=None)
    assert found["os/median_time"][~has_N].isna().all()
    assert (found["subtype/set"][has_N] != "").all() and (found["subtype/set"][~has_N] == "").all()
    assert set(found["abstain"][~has_N]) == {"nothing that may be read is there"}
    assert set(found["abstain"][has_N]) == {""}
    assert f"{(~has_N).sum()} records cannot be predicted: nothing that may be read is there." in kept.sentences(cohort)


def test_only_what_is_used_is_kept(mixed, run):
    there = {path.name for path in (mixed / "kept" / "linear").iterdir()}
    assert there == {"clinical + omics", "omics"}
    weights = json.loads((run / "kept" / DOCUMENT).read_text())["weights"]
    used = {method for of_task in weights.values() for method in of_task} - {"ours", "frozen probe", "from scratch"}
    linear = run / "kept" / "linear"
    assert ({path.name for path in linear.iterdir()} if linear.exists() else set()) == used


@pytest.mark.parametrize("name", [DOCUMENT, TENSORS])
def test_what_is_damaged_or_missing_is_refused(mixed, tmp_path, name):
    copied = Path(shutil.copytree(mixed, tmp_path / "run"))
    content = (copied / "kept" / name).read_bytes()
    (copied / "kept" / name).write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(CheckpointError, match="damaged"):
        KeptPredictor.read(copied)
    (copied / "kept" / name).unlink()
    with pytest.raises(CheckpointError, match=f"it has no {name}\n.*final: true"):
        KeptPredictor.read(copied)


def test_a_method_that_reads_what_may_not_be_seen_is_not_kept(tune):
    metrics, folder = tune("modalities=[rna]", "final=true")
    assert "clinical" in metrics["baselines"] and set(metrics["kept"]["of"]) <= {"ours", "omics"}
    kept = KeptPredictor.read(folder, torch.device("cpu"))
    assert kept.modalities == ("rna",)
    assert kept_predictor.NETWORKS.keys() == {"ours", "frozen probe", "from scratch"}


def test_it_predicts_other_cohorts(mixed, make_cohort, tmp_path, cohort):
    other: PreparedCohort = make_cohort(tmp_path / "other")
    rows = np.arange(len(other))
    kept = KeptPredictor.read(mixed, torch.device("cpu"))
    pd.testing.assert_frame_equal(kept.predict(other), kept.predict(cohort, rows))


def test_a_weight_that_was_changed_is_noticed(mixed, tmp_path):
    copied = Path(shutil.copytree(mixed, tmp_path / "run"))
    path = copied / "kept" / DOCUMENT
    path.write_text(path.read_text().replace("0.4", "0.6", 1))
    with pytest.raises(CheckpointError, match=f"{DOCUMENT} is damaged"):
        KeptPredictor.read(copied)


def test_values_in_another_unit_are_told_as_unlike_those_of_training(mixed, cohort):
    """Of 45 patients with RNA: where all genes are tenfold, everybody is far from the training patients."""
    kept = KeptPredictor.read(mixed, torch.device("cpu"))
    # One factor moves all genes of this cohort: an order of genes cannot be seen in them, so that nothing is shown.
    assert not kept.novelty.validity["rna"].shown and "novelty/rna" not in kept.predict(cohort)
    kept.novelty.validity["rna"].auroc.pop("features in another order")
    rows = np.flatnonzero(cohort.present_NM[:, cohort.modalities.index("rna")])
    before = kept.predict(cohort, rows)
    scaling = kept.novelty.preprocessing.modalities["rna"]
    tenfold = scaling.model_copy(update={"scale": [scale / 10 for scale in scaling.scale]})
    wrong = kept.novelty.preprocessing.model_copy(
        update={"modalities": {**kept.novelty.preprocessing.modalities, "rna": tenfold}}
    )
    kept.novelty.preprocessing = wrong
    after = kept.predict(cohort, rows)
    assert (before["novelty/rna"] < after["novelty/rna"]).mean() > 0.95
    assert (before["abstain"] == "").mean() > 0.9
    assert after["abstain"].str.match(r"rna is unlike that of training patients \(\d+\.\d\)").mean() > 0.9
