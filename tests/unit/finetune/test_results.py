"""A run writes what it promises, and what it writes is what others compute from its predictions."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from sklearn.metrics import recall_score, roc_auc_score

from finetune.results import read_oracle
from finetune.run import finetune
from foundation.cohort.store import PreparedCohort
from foundation.model import model_folder

NAMES = ("rna", "mutation", "clinical")
SUBSETS = ["+".join(subset) for size in (1, 2, 3) for subset in combinations(NAMES, size)]
CLASSES = "abc"


@pytest.fixture(scope="module")
def run(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, each of which some patients have no label for; everything on."""
    folder = tmp_path_factory.mktemp("run")
    oracle = folder / "oracle.json"
    oracle.write_text(json.dumps({"subtype": {"balanced_accuracy": {"oracle": 0.875}}}))
    changes = ["compare=[from scratch, frozen probe]", "final=true", f"oracle={oracle}", "labels=[12]"]
    finetune(workplace / "config.yaml", [f"out={folder / 'run'}", *changes])
    return folder / "run"


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((run / "metrics.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet")


def first_rows(cohort: PreparedCohort, patients: pd.Series) -> np.ndarray:
    """The first record of each patient."""
    return np.array([np.flatnonzero(cohort.patients == patient)[0] for patient in patients])


def truth_of(cohort: PreparedCohort, predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the truth and what each patient has beside them."""
    rows = first_rows(cohort, predictions["patient"])
    has = {name: cohort.present_NM[rows, m] for m, name in enumerate(cohort.modalities)}
    survival = cohort.endpoint("os")
    return predictions.assign(
        code=cohort.endpoint("subtype")["code"][rows], **{part: survival[part][rows] for part in survival}, **has
    )


def right_classes(frame: pd.DataFrame) -> float:
    chances = frame[[f"subtype/probability/{name}" for name in CLASSES]].to_numpy()
    # The same as balanced accuracy, which warns of guesses that nobody is.
    classes = frame["code"].unique()
    return float(recall_score(frame["code"], chances.argmax(axis=1), labels=classes, average="macro", zero_division=0))


def right_orders(frame: pd.DataFrame) -> float:
    from sksurv.metrics import concordance_index_censored

    return float(concordance_index_censored(frame["event"] == 1, frame["time"], frame["os/risk"])[0])


def test_the_run_folder_is_complete(run, metrics):
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "metrics.json", "predictions.parquet", "report.html", "adapter", "model"}
    assert not list(run.rglob("*partial*"))
    promised = {"task", "endpoint", "metric", "folds", "mean", "ci95", "baselines", "by_modality_subset", "by_pattern"}
    described = {"chance", "n", "metrics", "calibration", "by_group"}
    assert promised | described | {"classes", "oracle", "chosen", "splits", "pretrain", "adaptation"} <= set(metrics)
    assert {"cohort", "seed", "seconds", "versions", "other_tasks"} <= set(metrics)
    [other] = metrics["other_tasks"]
    assert promised | described | {"events"} <= set(other)
    assert (metrics["task"], metrics["endpoint"], metrics["metric"]) == ("subtype", "subtype", "balanced_accuracy")
    assert (other["task"], other["endpoint"], other["metric"], other["chance"]) == ("survival", "os", "c_index", 0.5)
    assert metrics["oracle"] == 0.875 and "oracle" not in other
    page = (run / "report.html").read_text()
    assert "subtype" in page and "P0" not in page


def test_what_was_chosen_is_told_of_every_fold_and_method(metrics):
    chosen = {(choice["fold"], choice["method"], choice["labels"]) for choice in metrics["chosen"]}
    methods = ["ours", "from scratch", "frozen probe"]
    assert chosen == {(fold, method, few) for fold in "01" for method in methods for few in (None, 12)} | {
        ("all", method, None) for method in methods
    }
    assert all(choice["epochs"] == 0 for choice in metrics["chosen"] if choice["method"] == "frozen probe")


def test_what_was_adapted_stands_on_the_model_beside_it(run, workplace):
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, workplace))
    assert ours.keys() == theirs.keys() and all(tensor.equal(theirs[name]) for name, tensor in ours.items())
    model, _ = model_folder.read(run / "model")
    document = json.loads((run / "adapter" / "adapter.json").read_text())
    assert document["base"] == model_folder.fingerprint(model) and document["adapt"]["rank"] == 2


def test_everybody_with_a_label_who_was_not_seen_is_tested_once(predictions, metrics, cohort, seen):
    labelled = (cohort.endpoint("subtype")["code"] >= 0) | np.isfinite(cohort.endpoint("os")["time"])
    expected = set(cohort.patients[labelled & cohort.present_NM.any(axis=1)]) - seen
    assert sorted(predictions["patient"]) == sorted(expected)
    assert metrics["splits"]["left_out"].keys() == {"no label", "none of the modalities"}
    assert predictions["fold"].value_counts().to_dict() == {
        fold["fold"]: fold["test"] for fold in metrics["splits"]["folds"]
    }
    assert np.isfinite(predictions.filter(regex="probability|risk").to_numpy()).all()


@pytest.mark.parametrize(("task", "known", "score"), [(0, "code", right_classes), (1, "time", right_orders)])
def test_every_value_is_that_of_an_independent_reference(metrics, predictions, cohort, task, known, score):
    entry = [metrics, *metrics["other_tasks"]][task]
    frame = truth_of(cohort, predictions)
    frame = frame[frame[known] >= 0]
    assert entry["n"] == len(frame) < len(predictions), "some patients lack this label"
    for fold in entry["folds"]:
        here = frame[frame["fold"] == fold["fold"]]
        assert fold["n"] == len(here)
        assert fold["value"] == pytest.approx(score(here), abs=1e-12)
    assert [fold["fold"] for fold in entry["folds"]] == ["0", "1"]
    assert entry["mean"] == pytest.approx(np.mean([fold["value"] for fold in entry["folds"]]))
    for name, measured in entry["metrics"].items():
        low, high = measured["ci95"]
        assert low <= measured["mean"] <= high, name
    assert entry["metrics"][entry["metric"]]["mean"] == entry["mean"]


def test_the_area_under_the_curve_is_that_of_an_independent_reference(metrics, predictions, cohort):
    frame = truth_of(cohort, predictions).query("code >= 0")
    columns = [f"subtype/probability/{name}" for name in CLASSES]
    areas = [
        roc_auc_score(here["code"], here[columns].to_numpy(), multi_class="ovr") for _, here in frame.groupby("fold")
    ]
    assert metrics["metrics"]["auroc"]["mean"] == pytest.approx(np.mean(areas))


def test_calibration_is_that_of_everybody_predicted_out_of_fold(run, metrics, predictions, cohort):
    frame = truth_of(cohort, predictions).query("code >= 0")
    found = metrics["calibration"]["all"]
    assert found["n"] == len(frame)
    for k, name in enumerate(CLASSES):
        told = {"observed": (frame["code"] == k).sum(), "expected": frame[f"subtype/probability/{name}"].sum()}
        assert found["counts"][name] == pytest.approx(told)
    [survival] = metrics["other_tasks"]
    assert survival["calibration"]["all"]["p_values"].keys() >= {"d_calibration", "one_calibration/365.25"}
    for entry in (metrics, survival):
        slope = entry["calibration"]["all"]["scores"]["calibration_slope"]
        assert entry["metrics"]["calibration_slope"] == slope and slope["mean"] is not None
    page = (run / "report.html").read_text()
    assert "<h3>Calibration</h3>" in page and "nearer 1" in page and "D-calibrated" in page


def test_what_there_is_of_each_class_and_of_events_is_counted(metrics, predictions, cohort):
    frame = truth_of(cohort, predictions)
    assert list(metrics["classes"].values()) == [int((frame["code"] == k).sum()) for k in range(3)]
    assert metrics["other_tasks"][0]["events"] == int((frame["event"] == 1).sum())


@pytest.mark.parametrize(("task", "known"), [(0, "code"), (1, "time")])
def test_every_subset_is_of_those_who_have_all_of_it(metrics, predictions, cohort, task, known):
    entry = [metrics, *metrics["other_tasks"]][task]
    frame = truth_of(cohort, predictions)
    frame = frame[frame[known] >= 0]
    assert list(entry["by_modality_subset"]) == SUBSETS
    for subset, summary in entry["by_modality_subset"].items():
        assert summary["n"] == int(frame[subset.split("+")].all(axis=1).sum())


def test_every_pattern_is_of_those_who_have_just_that(metrics, predictions, cohort):
    frame = truth_of(cohort, predictions).query("code >= 0")
    patterns = frame[list(NAMES)].apply(lambda has: "+".join(name for name in NAMES if has[name]), axis=1)
    found = {name: summary["n"] for name, summary in metrics["by_pattern"].items()}
    assert found == patterns.value_counts().to_dict()
    for name, summary in metrics["by_pattern"].items():
        for fold in summary["folds"]:
            here = frame[(patterns == name) & (frame["fold"] == fold["fold"])]
            assert fold["value"] == pytest.approx(right_classes(here))


def test_few_patients_have_a_score_and_no_interval(metrics):
    rows = [row for key in ("by_modality_subset", "by_pattern") for row in metrics[key].values() if row["mean"]]
    assert {row["n"] < 10 for row in rows} == {True, False}, "or nothing is compared"
    assert all((row["ci95"] == [None, None]) == (row["n"] < 10) for row in rows)


def test_who_has_everything_is_told_the_same_whether_or_not_the_rest_is_hidden(metrics):
    for entry in (metrics, *metrics["other_tasks"]):
        assert entry["by_modality_subset"][SUBSETS[-1]] == entry["by_pattern"][SUBSETS[-1]]


def test_every_baseline_is_compared_on_the_same_patients(metrics):
    names = {"from scratch", "frozen probe", "clinical", "omics", "clinical + omics"}
    kept = {"kept without pretraining"}
    for entry in (metrics, *metrics["other_tasks"]):
        assert set(entry["baselines"]) == names | kept
        for baseline in entry["baselines"].values():
            assert [fold["n"] for fold in baseline["folds"]] == [fold["n"] for fold in entry["folds"]]
            difference = baseline["difference"]
            assert difference["value"] == pytest.approx(entry["mean"] - baseline["mean"])
            assert difference["ci95"][0] <= difference["value"] <= difference["ci95"][1]
        assert set(entry["by_labels"]["12"]) == names | {"ours"}


@pytest.mark.parametrize(
    ("task", "expected"), [("toxicity", 0.88), ("response", 0.83), ("os", 0.76), ("toxicity+response", None)]
)
def test_what_an_oracle_reaches_is_found_by_the_metric_of_the_task(tmp_path, task, expected):
    path = tmp_path / "oracle.json"
    reached = {
        "toxicity": {"balanced_accuracy": 0.78, "macro_auroc": 0.88},
        "response": {"auroc_responder": 0.83, "quadratic_kappa": 0.6},
        "os": {"c_index": 0.76},
    }
    path.write_text(json.dumps({name: {m: {"oracle": v} for m, v in of.items()} for name, of in reached.items()}))
    known = SimpleNamespace(name="os", primary="c_index")
    asked = SimpleNamespace(name=task, primary="c_index" if task == "os" else "auroc")
    found = read_oracle(SimpleNamespace(oracle=path), SimpleNamespace(unfitted=[known, asked]))
    assert found.get(task) == expected and found["os"] == 0.76
