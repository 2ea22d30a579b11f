"""Scores of small made-up predictions: of each group and fold, against baselines, by what was seen, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from finetune.config import FinetuneConfig
from finetune.evaluation.evaluate import FEWEST, TaskEvaluation, where
from finetune.methods.adapted import EVERYTHING
from finetune.splits import Fold, Folds, Records, SplitConfig
from finetune.study import Study

PATIENTS = 48
CLASSES = ("a", "b", "c")
ENDPOINTS = {
    "subtype": {"kind": "subtype", "classes": {"a": 0, "b": 0, "c": 0}},
    "os": {"kind": "survival", "unit": "days"},
}
Frames = dict[str, pd.DataFrame]


class Cohort(SimpleNamespace):
    """Two cancers; every seventh patient has no class; all have clinical covariates, half rna, a third mutations."""

    def __init__(self, group_names: tuple[str, ...] = ("glioma", "sarcoma"), patients: int = PATIENTS) -> None:
        number = np.arange(patients)
        random = np.random.default_rng(0)
        super().__init__(
            patients=np.array([f"P{i:02d}" for i in number], dtype=object),
            sites=np.full(patients, "", dtype=object),
            groups=np.array([group_names[i // 3 % len(group_names)] for i in number], dtype=object),
            modalities=["rna", "mutation", "clinical"],
            present_NM=np.stack([number % 2 == 0, number % 3 == 0, number >= 0], axis=1),
            manifest=SimpleNamespace(endpoints=ENDPOINTS),
        )
        self.parts = {
            "subtype": {"code": np.where(number % 7 == 6, -1, random.integers(0, 3, patients))},
            "os": {"time": random.permutation(patients) + 1.0, "event": random.integers(0, 2, patients).astype(float)},
        }

    def __len__(self) -> int:
        return len(self.patients)

    def endpoint(self, name: str) -> dict[str, np.ndarray]:
        return self.parts[name]


def study_of(cohort: Cohort, tests: Mapping[str, np.ndarray]) -> Study:
    """A study whose folds test given rows and train on all others."""
    config = FinetuneConfig.model_validate(
        {
            "cohort": Path("cohort"),
            "out": Path("run"),
            "pretrain": Path("model"),
            "seed": 3,
            "tasks": [{"task": "subtype", "endpoint": "subtype"}, {"task": "survival", "endpoint": "os"}],
        }
    )
    everybody = np.arange(len(cohort))
    folds = [Fold(name, np.setdiff1d(everybody, rows), rows) for name, rows in tests.items()]
    nobody = np.zeros(len(cohort), dtype=bool)
    records = Records(cohort.patients, cohort.sites, np.zeros(len(cohort), dtype=np.int64))
    return Study(config, cohort, tuple(cohort.modalities), Folds(SplitConfig(), 3, records, folds, {}, nobody), nobody)


def evaluation_of(study: Study, name: str = "subtype") -> TaskEvaluation:
    return TaskEvaluation(study, name, {fold.name: study.tasks(fold.train)[name] for fold in study.folds.folds})


def read_of(cohort: Cohort, rows: np.ndarray) -> list[str]:
    """What a model reads of each of some rows."""
    return ["+".join(np.array(cohort.modalities)[has]) for has in cohort.present_NM[rows]]


def predicted(study: Study, skill: float, seed: int = 0, seen: str = EVERYTHING) -> Frames:
    """Probabilities and risks that know the truth as far as `skill` lets them."""
    random, frames = np.random.default_rng(seed), {}
    for fold in study.folds.folds:
        code = study.cohort.endpoint("subtype")["code"][fold.test]
        logits = random.standard_normal((len(code), 3)) + skill * (code[:, None] == np.arange(3))
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        frames[fold.name] = pd.DataFrame(
            {
                "row": fold.test,
                "seen": seen,
                "modalities": read_of(study.cohort, fold.test),
                **{f"subtype/probability/{name}": probability[:, k] for k, name in enumerate(CLASSES)},
                "os/risk": random.standard_normal(len(code))
                - skill / 10 * study.cohort.endpoint("os")["time"][fold.test],
            }
        )
    return frames


def guesses(frame: pd.DataFrame) -> np.ndarray:
    return frame[[f"subtype/probability/{name}" for name in CLASSES]].to_numpy().argmax(axis=1)


def right(study: Study, frame: pd.DataFrame) -> float:
    """Mean over the classes of the share of right guesses, among those of the frame who have a class."""
    code = study.cohort.endpoint("subtype")["code"][frame["row"]]
    known = code >= 0
    return float(recall_score(code[known], guesses(frame)[known], average="macro", labels=np.unique(code[known])))


def by_hand(study: Study, frames: Frames) -> float:
    """Mean over groups of the mean over folds."""
    of_group = {}
    for frame in frames.values():
        for group, here in frame.groupby(study.cohort.groups[frame["row"]].astype(str)):
            of_group.setdefault(group, []).append(right(study, here))
    return float(np.mean([np.mean(values) for values in of_group.values()]))


@pytest.fixture(scope="module")
def study() -> Study:
    rows = np.arange(PATIENTS)
    return study_of(Cohort(), {"0": rows[rows % 3 == 0], "1": rows[rows % 3 == 1]})


@pytest.fixture(scope="module")
def evaluation(study: Study) -> TaskEvaluation:
    return evaluation_of(study)


@pytest.fixture(scope="module")
def frames(study: Study) -> Frames:
    return predicted(study, 1.0)


def test_every_group_of_every_fold_is_scored_by_itself(study, evaluation, frames):
    parts = evaluation.parts(frames)
    assert [(part.fold, part.group) for part in parts] == [
        ("0", "glioma"), ("0", "sarcoma"), ("1", "glioma"), ("1", "sarcoma")
    ]  # fmt: skip
    code = study.cohort.endpoint("subtype")["code"]
    for part in parts:
        rows = study.tested[part.at]
        assert (study.cohort.groups[rows] == part.group).all() and (code[rows] >= 0).all()
        frame = frames[part.fold].set_index("row").loc[rows].reset_index()
        score = part.scores["balanced_accuracy"](np.ones((1, len(rows))))
        assert score[0] == pytest.approx(right(study, frame))


def test_a_result_is_the_mean_over_groups_of_their_means_over_folds(study, evaluation, frames):
    found = evaluation.summary(evaluation.parts(frames))
    code = study.cohort.endpoint("subtype")["code"]
    assert found["mean"] == pytest.approx(by_hand(study, frames))
    assert found["n"] == (code[study.tested] >= 0).sum()
    for told, (fold, frame) in zip(found["folds"], frames.items(), strict=True):
        assert told["fold"] == fold and told["n"] == (code[frame["row"]] >= 0).sum()
        assert told["value"] == pytest.approx(by_hand(study, {fold: frame}))


def test_a_group_that_a_fold_does_not_test_is_the_mean_of_the_others(evaluation, frames, study):
    without = dict(frames)
    without["1"] = frames["1"][study.cohort.groups[frames["1"]["row"]] == "glioma"]
    found = evaluation.summary(evaluation.parts(without))
    assert found["mean"] == pytest.approx(by_hand(study, without))
    assert found["mean"] != pytest.approx(np.mean([fold["value"] for fold in found["folds"]]))


def test_an_interval_is_that_of_patients_drawn_again_from_all_who_are_tested(evaluation, frames, study):
    found = evaluation.summary(evaluation.parts(frames))
    count = len(study.tested)
    draws = np.random.default_rng(study.config.seed).multinomial(count, np.full(count, 1 / count), size=500)
    code, drawn = study.cohort.endpoint("subtype")["code"], []
    for weights in draws:
        weight_of = dict(zip(study.tested, weights, strict=True))
        again = {fold: frame.loc[frame.index.repeat(frame["row"].map(weight_of))] for fold, frame in frames.items()}
        again = {fold: frame[code[frame["row"]] >= 0] for fold, frame in again.items()}
        drawn.append(quick(study, again))
    assert found["ci95"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


def quick(study: Study, frames: Frames) -> float:
    """`by_hand` of patients who all have a class, without the overhead of libraries."""
    of_group: dict[str, list[float]] = {}
    for frame in frames.values():
        rows = frame["row"].to_numpy()
        code = study.cohort.endpoint("subtype")["code"][rows]
        hit = guesses(frame) == code
        for group in np.unique(study.cohort.groups[rows].astype(str)):
            here = study.cohort.groups[rows] == group
            of_group.setdefault(group, []).append(np.mean([hit[here & (code == k)].mean() for k in set(code[here])]))
    return float(np.mean([np.mean(values) for values in of_group.values()]))


@pytest.mark.parametrize(("patients", "told"), [(FEWEST - 1, False), (FEWEST, True)])
def test_of_few_patients_a_mean_is_told_and_no_interval(patients, told):
    cohort = Cohort(("",), patients)
    cohort.parts["subtype"] = {"code": np.arange(patients) % 3}
    study = study_of(cohort, {"0": np.arange(patients)[::2], "1": np.arange(patients)[1::2]})
    evaluation = TaskEvaluation(study, "subtype", dict.fromkeys("01", study.unfitted[0]))
    found = evaluation.summary(evaluation.parts(predicted(study, 1.0)))
    assert found["n"] == patients and found["mean"] is not None
    assert (found["ci95"] != [None, None]) == told


def test_of_nobody_there_is_nothing(evaluation, frames, study):
    nothing = {"n": 0, "mean": None, "ci95": [None, None], "chance": 1 / 3, "folds": []}
    assert evaluation.summary(evaluation.parts({})) == nothing
    unknown = study.cohort.endpoint("subtype")["code"] < 0
    strangers = {fold: frame[unknown[frame["row"]]] for fold, frame in frames.items()}
    assert all(map(len, strangers.values()))
    assert evaluation.summary(evaluation.parts(strangers)) == nothing
    without = {fold: frame.drop(columns=frame.filter(like="subtype/").columns) for fold, frame in frames.items()}
    assert evaluation.parts(without) == []


def test_a_patient_whom_two_repeats_test_counts_once(study):
    rows = np.arange(0, PATIENTS, 2)
    again = study_of(Cohort(), {"0.0": rows, "1.0": rows})
    evaluation = evaluation_of(again)
    frames = predicted(again, 1.0)
    found = evaluation.summary(evaluation.parts(frames))
    labelled = (again.cohort.endpoint("subtype")["code"][rows] >= 0).sum()
    assert found["n"] == labelled and [fold["n"] for fold in found["folds"]] == [labelled, labelled]
    assert found["mean"] == pytest.approx(by_hand(again, frames))


def test_every_measure_is_told_and_survival_is_compared_within_a_group(study, evaluation, frames):
    code = study.cohort.endpoint("subtype")["code"]
    areas, f1s = [], []
    for group in ("glioma", "sarcoma"):
        here = [f[(study.cohort.groups[f["row"]] == group) & (code[f["row"]] >= 0)] for f in frames.values()]
        chances = [frame.filter(like="subtype/").to_numpy() for frame in here]
        areas.append([roc_auc_score(code[f["row"]], c, multi_class="ovr") for f, c in zip(here, chances, strict=True)])
        f1s.append([f1_score(code[f["row"]], guesses(f), average="macro") for f in here])
    found = evaluation.metrics(evaluation.parts(frames))
    assert found["auroc"]["mean"] == pytest.approx(np.mean(areas))
    assert found["macro_f1"]["mean"] == pytest.approx(np.mean(f1s))
    assert "folds" not in found["auroc"]

    from lifelines.utils import concordance_index

    survival = evaluation_of(study, "os")
    os = study.cohort.endpoint("os")
    of_part = [
        concordance_index(os["time"][here["row"]], -here["os/risk"], os["event"][here["row"]])
        for frame in frames.values()
        for _, here in frame.groupby(study.cohort.groups[frame["row"]].astype(str))
    ]
    assert survival.summary(survival.parts(frames))["mean"] == pytest.approx(np.mean(of_part))


def test_a_baseline_is_told_with_by_how_much_ours_is_better(study, evaluation, frames):
    worse = predicted(study, -1.0, seed=1)
    ours, theirs = evaluation.parts(frames), evaluation.parts(worse)
    found, reverse = evaluation.against(ours, theirs), evaluation.against(theirs, ours)
    assert found["mean"] == pytest.approx(by_hand(study, worse))
    difference = found["difference"]
    assert difference["value"] == pytest.approx(by_hand(study, frames) - by_hand(study, worse))
    assert 0 < difference["ci95"][0] < difference["value"] and difference["p_value"] < 0.05
    assert reverse["difference"]["value"] == pytest.approx(-difference["value"])
    assert "difference" not in evaluation.against(ours, [])


def test_groups_are_told_by_themselves_beside_every_baseline_and_only_where_there_are_any(study, evaluation, frames):
    parts = {name: evaluation.parts(predicted(study, 0.0, seed)) for seed, name in enumerate(["clinical", "omics"])}
    found = evaluation.by_group(evaluation.parts(frames), parts)
    assert list(found) == ["glioma", "sarcoma"]
    for group, told in found.items():

        def of_group(frames: Frames, group: str = group) -> float:
            return by_hand(study, {k: f[study.cohort.groups[f["row"]] == group] for k, f in frames.items()})

        assert told["mean"] == pytest.approx(of_group(frames))
        expected = {name: of_group(predicted(study, 0.0, seed)) for seed, name in enumerate(["clinical", "omics"])}
        assert told["baselines"] == pytest.approx(expected)
    alone = study_of(Cohort(("",)), {"0": np.arange(0, PATIENTS, 2)})
    without = evaluation_of(alone)
    assert without.by_group(without.parts(predicted(alone, 1.0)), {}) == {}


def test_a_subset_is_scored_on_those_who_have_it_seen_with_it_alone(study, evaluation, frames):
    has = {name: study.cohort.present_NM[:, m] for m, name in enumerate(study.cohort.modalities)}
    of_subset = {
        name: {fold: f[has[name][f["row"]]] for fold, f in predicted(study, skill, seed, name).items()}
        for seed, (name, skill) in enumerate({"rna": 2.0, "mutation": 0.0}.items())
    }
    ours = {fold: pd.concat([frame, *(of_subset[name][fold] for name in of_subset)]) for fold, frame in frames.items()}
    found = evaluation.by_subset(ours)
    assert list(found) == ["rna", "mutation"], "and not everything"
    for name, told in found.items():
        assert told["mean"] == pytest.approx(by_hand(study, of_subset[name]))
        rows = np.concatenate([frame["row"] for frame in of_subset[name].values()])
        assert told["n"] == (study.cohort.endpoint("subtype")["code"][rows] >= 0).sum()


def test_patterns_come_by_how_many_have_them_and_without_a_label_not_at_all(study, frames):
    cohort = Cohort()
    only_clinical = ~cohort.present_NM[:, :2].any(axis=1)
    cohort.parts["subtype"] = {"code": np.where(only_clinical, -1, cohort.parts["subtype"]["code"])}
    evaluation = evaluation_of(study_of(cohort, {fold.name: fold.test for fold in study.folds.folds}))
    rows = np.concatenate([frame["row"] for frame in frames.values()])
    rna, mutation = cohort.present_NM[rows, 0], cohort.present_NM[rows, 1]
    of_pattern = {
        "rna+clinical": rows[rna & ~mutation],
        "mutation+clinical": rows[~rna & mutation],
        "rna+mutation+clinical": rows[rna & mutation],
    }
    found = evaluation.by_pattern(frames)
    assert set(found) == set(of_pattern)
    sizes = [len(of_pattern[pattern]) for pattern in found]
    assert sizes == sorted(sizes, reverse=True)
    for pattern, told in found.items():
        here = {fold: frame[frame["row"].isin(of_pattern[pattern])] for fold, frame in frames.items()}
        here = {fold: frame for fold, frame in here.items() if len(frame)}
        assert told["mean"] == pytest.approx(by_hand(evaluation.study, here))


def test_tested_patients_are_counted_by_class_or_event(study, evaluation):
    code = study.cohort.endpoint("subtype")["code"][study.tested]
    assert evaluation.counts() == {"classes": {name: int((code == k).sum()) for k, name in enumerate(CLASSES)}}
    events = study.cohort.endpoint("os")["event"][study.tested]
    assert evaluation_of(study, "os").counts() == {"events": int(events.sum())}


def test_a_fold_without_any_such_prediction_is_left_out(frames):
    mixed = {"0": frames["0"], "1": frames["1"].assign(seen="rna")}
    assert list(where(mixed, "seen", EVERYTHING)) == ["0"] and list(where(mixed, "seen", "rna")) == ["1"]


# Chance


def test_chance_is_what_the_best_constant_answer_gets_on_the_same_folds():
    """Of class c one fold of one cancer has one patient, who is tested; scikit-learn scores the constant answers."""
    cohort = Cohort()
    code = cohort.parts["subtype"]["code"]
    code[code == 2] = 0
    code[0] = 2
    rows = np.arange(PATIENTS)
    study = study_of(cohort, {str(k): rows[rows % 3 == k] for k in range(3)})
    evaluation = evaluation_of(study)
    found = evaluation.summary(evaluation.parts(predicted(study, 2.0)))
    expected: dict[str, dict[str, list[float]]] = {}
    for fold in study.folds.folds:
        for group in np.unique(cohort.groups):
            here = fold.test[(cohort.groups[fold.test] == group) & (code[fold.test] >= 0)]
            truth, there = code[here], np.unique(code[here])
            answers = [np.full(len(here), k) for k in range(3)]
            scores = {
                "balanced_accuracy": max(recall_score(truth, a, average="macro", labels=there) for a in answers),
                "macro_f1": max(f1_score(truth, a, average="macro", zero_division=0) for a in answers),
                "auroc": 0.5,
                "auprc": np.mean([average_precision_score(truth == k, np.ones(len(here))) for k in there]),
            }
            for name, score in scores.items():
                expected.setdefault(name, {}).setdefault(group, []).append(score)
    metrics = evaluation.metrics(evaluation.parts(predicted(study, 2.0)))
    for name, of_group in expected.items():
        by_hand = np.mean([np.mean(values) for values in of_group.values()])
        assert metrics[name]["chance"] == pytest.approx(by_hand), name
    assert found["chance"] == metrics["balanced_accuracy"]["chance"] > 1 / 3
    assert [fold["chance"] for fold in found["folds"]] == [pytest.approx(x) for x in (5 / 12, 1 / 2, 1 / 2)]


def test_chance_of_survival_needs_no_data(study):
    evaluation = evaluation_of(study, "os")
    assert evaluation.summary(evaluation.parts(predicted(study, 1.0)))["chance"] == 0.5


@pytest.mark.parametrize("form", ["ordinal", "responder"])
def test_chance_of_responses(form):
    from finetune.tasks.response import Response, ResponseConfig

    task = Response(
        ResponseConfig(endpoint="r", form=form), {"r": {"kind": "response", "classes": dict.fromkeys("abcd")}}
    )
    truth = {"r": {"code": np.array([0, 0, 1, 2, 3, -1])}}
    one_each = np.ones((1, 6))
    best: dict[str, float] = {}
    for answer in task.constants(truth):
        columns = {name: np.repeat(value, 6, axis=0) for name, value in answer.items()}
        for name, score in task.metrics(truth, columns, np.full(6, "")).items():
            best[name] = np.fmax(best.get(name, np.nan), score(one_each)[0])
    assert (best["auroc"], best["auprc"]) == (0.5, 0.4)
    if form == "ordinal":
        assert (best["balanced_accuracy"], best["quadratic_kappa"]) == (0.25, pytest.approx(0))


# Calibration


def with_curves(study: Study, evaluation: TaskEvaluation, sharpness: float = 1.0) -> Frames:
    """Survival probabilities of a log hazard that is a patient's number, times `sharpness`; with a baseline by fold."""
    frames = {}
    for number, fold in enumerate(study.folds.folds):
        grid = evaluation.fitted[fold.name].grid
        log_hazard = sharpness * np.sin(fold.test) + 0.1 * number
        free = np.exp(-np.outer(np.exp(log_hazard), grid) / 900)
        columns = {f"os/survival_probability/{at:g}": free[:, t] for t, at in enumerate(grid)}
        frames[fold.name] = pd.DataFrame({"row": fold.test, "seen": EVERYTHING, "os/risk": log_hazard, **columns})
    return frames


@pytest.fixture(scope="module")
def long_study() -> Study:
    """Two cancers of 120 patients each, whose log hazard is the sine of their number; three folds."""
    cohort, random = Cohort(patients=240), np.random.default_rng(0)
    died = random.exponential(900 * np.exp(-np.sin(np.arange(240))))
    lost = random.uniform(200, 3000, 240)
    cohort.parts["os"] = {"time": np.minimum(died, lost), "event": (died <= lost).astype(float)}
    rows = np.arange(240)
    return study_of(cohort, {str(k): rows[rows // 40 % 3 == k] for k in range(3)})


def test_calibration_is_of_the_patients_of_all_folds_in_each_group(long_study):
    from lifelines import CoxPHFitter
    from scipy.stats import chisquare

    from foundation.metrics.survival_calibration import patients_by_bin

    evaluation = evaluation_of(long_study, "os")
    frames = with_curves(long_study, evaluation, 0.5)
    found = evaluation.calibration(frames)
    os, number = long_study.cohort.endpoint("os"), np.arange(240)
    assert list(found) == ["glioma", "sarcoma"]
    for group, numbers in found.items():
        here = long_study.cohort.groups == group
        assert numbers["n"] == here.sum()
        # Hazards are constant, so that the survival probability at any time is known.
        fold, end = number[here] // 40 % 3, 3 * 365.25
        log_hazard = 0.5 * np.sin(number[here]) + 0.1 * fold
        time, event = os["time"][here], os["event"][here] * (os["time"][here] <= end)
        free = np.exp(-np.minimum(time, end) / 900 * np.exp(log_hazard))
        expected = chisquare(patients_by_bin(free, event)).pvalue
        assert numbers["p_values"]["d_calibration"] == pytest.approx(expected)
        table = pd.DataFrame(
            {"time": time, "event": os["event"][here], "x": log_hazard, "fold": number[here] // 40 % 3}
        )
        slope = CoxPHFitter().fit(table, "time", "event", strata=["fold"]).params_["x"]
        told = numbers["scores"]["calibration_slope"]
        assert told["mean"] == pytest.approx(slope, rel=1e-4) and told["ci95"][0] < told["mean"] < told["ci95"][1]
        count = numbers["counts"]["365.25"]
        assert count["expected"] == pytest.approx(np.sum(1 - np.exp(-365.25 / 900 * np.exp(log_hazard))))
        ratio = numbers["scores"]["observed_by_expected/365.25"]["mean"]
        assert ratio == pytest.approx(count["observed"] / count["expected"])
    halved = evaluation.calibration_scores(frames)["calibration_slope"]
    assert halved["n"] == 240 and 1.5 < halved["mean"] < 2.6
    right = evaluation.calibration_scores(with_curves(long_study, evaluation))["calibration_slope"]
    assert right["mean"] == pytest.approx(halved["mean"] / 2), "within cancers and folds"


def test_calibration_of_a_cohort_without_groups_is_of_all_and_of_few_has_no_p_value(long_study):
    rows = np.arange(40)
    alone = study_of(Cohort(("",), 40), {"0.0": rows[::2], "1.0": rows[::2]})
    alone.cohort.parts["os"] = {part: values[:40] for part, values in long_study.cohort.parts["os"].items()}
    evaluation = evaluation_of(alone, "os")
    frames = with_curves(alone, evaluation)
    found = evaluation.calibration(frames)
    assert list(found) == ["all"] and found["all"]["n"] == 20, "whom two repeats test counts once"
    assert found["all"]["scores"] == evaluation.calibration_scores(frames)
    few = evaluation.calibration({"0.0": frames["0.0"].head(FEWEST - 1)})["all"]
    assert set(few["p_values"].values()) == {None} and few["scores"]["calibration_slope"]["ci95"] == [None, None]


def test_the_calibration_error_is_of_all_folds_together(study, evaluation, frames):
    """Of each fold's few patients it would be mostly noise, and never near 0."""
    frame = pd.concat([*frames.values()]).drop_duplicates("row")
    rows = frame["row"].to_numpy()
    code = study.truth(rows)["subtype"]["code"]
    said = frame[[f"subtype/probability/{name}" for name in "abc"]].to_numpy()[code >= 0]
    right, stated = said.argmax(axis=1) == code[code >= 0], said.max(axis=1)
    at = np.minimum((stated * 10).astype(int), 9)
    by_hand = sum(abs((right - stated)[at == k].sum()) for k in range(10)) / len(right)
    told = evaluation.calibration_scores(frames)["calibration_error"]
    assert told["mean"] == pytest.approx(by_hand)
    assert "calibration_error" not in evaluation.metrics(evaluation.parts(frames))


def test_risks_alone_and_patients_without_a_label_have_no_calibration(study, evaluation, frames):
    survival = evaluation_of(study, "os")
    assert survival.calibration(frames) == survival.calibration_scores(frames) == {}
    unknown = study.cohort.endpoint("subtype")["code"] < 0
    assert evaluation.calibration({fold: frame[unknown[frame["row"]]] for fold, frame in frames.items()}) == {}
    told = evaluation.calibration(frames)["glioma"]
    assert set(told["counts"]) == set(CLASSES) and told["p_values"] == {}
    here = study.cohort.endpoint("subtype")["code"][study.tested][study.cohort.groups[study.tested] == "glioma"]
    assert [told["counts"][name]["observed"] for name in CLASSES] == [np.sum(here == k) for k in range(3)]
    observed = sum(count["observed"] for count in told["counts"].values())
    assert observed == pytest.approx(sum(count["expected"] for count in told["counts"].values())) == told["n"]
