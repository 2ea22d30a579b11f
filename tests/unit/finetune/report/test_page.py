"""The report of a fine-tuning run: what its lead says, and that everything measured is on the page."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest

from finetune.report.answer import headline, headlines, named
from finetune.report.figures.classes import binary_figures
from finetune.report.figures.survival import risk_groups
from finetune.report.page import write_report
from finetune.report.sections.modalities import Telling
from foundation.errors import DataError
from foundation.report.page import Picture

MODALITIES = ("clinical", "mri", "protein", "rna", "mutation", "mirna")
CANCERS = ("blca", "brca", "coad", "gbmlgg", "hnsc", "kirc", "luad", "skcm", "ucec")


class Reader(HTMLParser):
    """Lead, text, alternative texts of images and table rows of a page, and what is folded away."""

    def __init__(self, html):
        super().__init__()
        self.words, self.alts, self.rows, self.lead, self.folded = [], [], [], [], []
        self.within, self.skipping, self.leading, self.celled = 0, False, False, False
        self.feed(html)
        self.text = plain(" ".join(self.words))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.skipping = tag == "style"
        self.leading = tag == "p" and attrs.get("class") == "lead"
        self.within += tag == "details"
        if self.leading:
            self.lead.append("")
        if tag == "img":
            self.alts.append(plain(attrs["alt"]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.celled = True

    def handle_endtag(self, tag):
        self.leading = False
        self.celled = self.celled and tag not in ("td", "th")
        self.within -= tag == "details"

    def handle_data(self, data):
        if self.skipping:
            return
        self.words.append(data)
        if self.leading:
            self.lead[-1] += plain(data)
        if self.within:
            self.folded.append(data)
        if self.celled:
            self.rows[-1][-1] += plain(data)


def plain(text):
    return re.sub(r"\s+", " ", text.replace("\u00a0", " "))


def score(mean, half=0.05, **more):
    return {"mean": mean, "ci95": [round(mean - half, 4), round(mean + half, 4)], **more}


def folds(mean, missing=()):
    values = [mean + 0.02 * (fold - 2) for fold in range(5)]
    return [{"fold": str(k), "n": 56, "value": None if k in missing else v} for k, v in enumerate(values)]


def against(ours, theirs, missing=()):
    gap = ours - theirs
    difference = {"value": gap, "ci95": [gap - 0.03, gap + 0.03], "p_value": 0.0004 if abs(gap) > 0.03 else 0.21}
    return score(theirs, folds=folds(theirs, missing), difference=difference)


def calibrated(p_value, slope):
    return {
        "n": 40,
        "scores": {
            "calibration_slope": {"mean": None, "ci95": [None, None]} if slope is None else score(slope),
            "observed_by_expected/365.25": score(1.1),
        },
        "p_values": {"d_calibration": p_value, "one_calibration/365.25": 0.0002},
        "counts": {"365.25": {"observed": 12.34, "expected": 11.2}},
    }


def survival(random):
    """Nine cancers, where clinical + omics wins in three."""
    subsets = {
        "+".join(subset): score(0.5 + 0.035 * size + 0.01 * random.standard_normal(), n=280 - 40 * size)
        for size in range(1, len(MODALITIES) + 1)
        for subset in combinations(MODALITIES, size)
    }
    baselines = {"clinical": 0.66, "omics": 0.673, "clinical + omics": 0.7, "from scratch": 0.61, "frozen probe": 0.69}
    groups = {
        cancer: score(
            0.6 + 0.02 * k, 0.09, n=40 + 9 * k, baselines={"clinical": 0.59 + 0.01 * k, "omics": 0.63, "frozen": None}
        )
        for k, cancer in enumerate(CANCERS)
    }
    groups["ucec"] = {"n": 3, "mean": None, "ci95": [None, None], "baselines": {"clinical": None}}
    return {
        "task": "survival",
        "endpoint": "os",
        "metric": "c_index",
        "chance": 0.5,
        "n": 280,
        "events": 143,
        "folds": folds(0.716, missing=(3,)),
        **score(0.716),
        "metrics": {
            "c_index": score(0.716),
            "uno_c": score(0.702),
            "auc/365.25": score(0.74),
            "brier/365.25": score(0.151, 0.02),
            "integrated_brier": {"mean": None, "ci95": [None, None]},
            "calibration_slope": score(0.93),
        },
        "calibration": {
            "blca": calibrated(0.4, 0.9),
            "brca": calibrated(0.012, 0.41),
            "coad": calibrated(None, None),
        },
        "baselines": {name: against(0.716, value) for name, value in baselines.items()},
        "by_labels": {
            "50": {"ours": against(0.62, 0.62), "clinical": against(0.62, 0.64), "from scratch": against(0.62, 0.53)},
            "100": {"ours": against(0.66, 0.66), "clinical": against(0.66, 0.65)},
        },
        "training_patients": 224,
        "by_modality_subset": subsets,
        "by_pattern": {"mri+rna": score(0.7, n=40), "clinical+mri+rna": score(0.72, n=130)},
        "by_group": groups,
        "oracle": 0.83,
    }


def subtype():
    """Several classes, where a baseline wins."""
    return {
        "task": "subtype",
        "endpoint": "subtype",
        "metric": "balanced_accuracy",
        "chance": 1 / 3,
        "n": 271,
        "classes": {"Astro": 120, "GBM": 91, "Oligo": 60},
        "folds": folds(0.871),
        **score(0.871),
        "metrics": {"balanced_accuracy": score(0.871), "auroc": score(0.95, 0.02), "calibration_error": score(0.06)},
        "baselines": {"clinical": against(0.871, 0.52), "omics": against(0.871, 0.893)},
        "by_modality_subset": {"mri": score(0.35, n=260), "rna": score(0.84, n=150), "mri+rna": score(0.86, n=140)},
    }


def response():
    """Not better than chance, and hardly anything to compare with."""
    return {
        "task": "response",
        "endpoint": "response",
        "metric": "auroc",
        "chance": 0.5,
        "n": 64,
        "folds": folds(0.53),
        **score(0.53, 0.14),
        "metrics": {"auroc": score(0.53, 0.14)},
        "baselines": {"clinical": {"mean": None, "ci95": [None, None], "folds": []}, "omics": against(0.53, 0.51)},
    }


@pytest.fixture
def metrics():
    methods = {"lora": {"rank": 8, "dropout": 0.1}, "from scratch": {}, "frozen probe": {}}
    return {
        **survival(np.random.default_rng(3)),
        "other_tasks": [subtype(), response()],
        "chosen": [
            {"fold": str(fold), "method": method, "learning_rate": 0.001, **more, "epochs": 12 + fold}
            for fold in range(5)
            for method, more in methods.items()
        ],
        "splits": {
            "hash": "0123456789abcdef" * 4,
            "by": "site",
            "published": False,
            "patients": 280,
            "left_out": {"no label": 14, "no site": 6},
            "folds": [{"fold": str(fold), "train": 224, "test": 56} for fold in range(5)],
        },
        "pretrain": {"from": "runs/pan/model", "tested_though_seen": 0},
        "adaptation": "       trained  of\nomics  8,192  1,000,000\n  LoRA on blocks.*.qkv (4)",
        "cohort": "pancancer",
        "seed": 7,
        "seconds": 312.0,
        "versions": {"chiasma": "0.1.0", "torch": "2.15.0"},
    }


@pytest.fixture
def pictures():
    random = np.random.default_rng(1)
    time, event, risk = random.exponential(900, 280), random.random(280) < 0.5, random.standard_normal(280)
    yes, chance = random.random(64) < 0.4, random.random(64)
    return {
        "os": [risk_groups(risk, time, event, np.full(280, "a"), "days", "os")],
        "response": binary_figures(yes, chance, "responder"),
    }


def write(run, metrics, pictures=None, config=""):
    (run / "metrics.json").write_text(json.dumps(metrics, allow_nan=False))
    if config:
        (run / "config.yaml").write_text(config)
    write_report(run, pictures or {})
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "http:" not in html.replace("http://www.w3.org", "")
    return Reader(html)


def row(page, *start):
    """Rows of tables that begin so."""
    return [cells for cells in page.rows if cells[: len(start)] == list(start)]


def test_the_lead_has_a_sentence_for_each_task(tmp_path, metrics):
    page = write(tmp_path, metrics)
    assert page.lead == [
        (
            "For os, the mean C-index (Harrell) over 8 groups of this model is 0.716 (95 % interval 0.666 to 0.766) in "
            "280 patients with 143 events, where chance is 0.5; the best baseline, clinical + omics, has 0.700, "
            "and this is 0.016 higher (95 % interval of the difference −0.014 to +0.046, p = 0.21), which may be "
            "chance."
        ),
        (
            "A baseline does better: for subtype in 271 patients, where chance is 0.333, the balanced accuracy is "
            "0.893 (95 % interval 0.843 to 0.943) for omics and 0.871 (95 % interval 0.821 to 0.921) for this model, "
            "that is 0.022 lower (95 % interval of the difference −0.052 to +0.008, p = 0.21), which may be chance."
        ),
        (
            "Not better than chance: for response, the AUROC of this model is 0.530 (95 % interval 0.390 to 0.670) in "
            "64 patients, where chance is 0.5; the best baseline, omics, has 0.510, and this is 0.020 "
            "higher (95 % interval of the difference −0.010 to +0.050, p = 0.21), which may be chance."
        ),
    ]


@pytest.mark.parametrize("method", ["omics", "from scratch", "frozen probe"])
def test_any_baseline_that_does_better_comes_first(method):
    entry = response() | score(0.6)
    entry["baselines"] = {"clinical": against(0.6, 0.55), method: against(0.6, 0.601)}
    assert headline(entry).startswith("A baseline does better: for response")
    assert f"the AUROC is 0.601 (95\u00a0% interval 0.551 to 0.651) for {method} and 0.600" in headline(entry)


def test_to_lose_and_to_be_at_chance_are_both_said():
    entry = response()
    entry["baselines"]["omics"] = against(0.53, 0.66)
    assert headline(entry).startswith("A baseline does better, and this model is not better than chance: for response")


def test_an_interval_that_only_touches_chance_includes_it():
    assert headline(response() | {"mean": 0.55, "ci95": [0.5, 0.6]}).startswith("Not better than chance")
    assert headline(response() | {"mean": 0.55, "ci95": [0.501, 0.6]}).startswith("For response")
    no_interval = {"mean": 0.49, "ci95": [None, None], "baselines": {}}
    assert headline(response() | no_interval).startswith("Not better than chance")


def test_patients_seen_in_pretraining_are_told_in_the_lead(tmp_path, metrics):
    metrics["pretrain"]["tested_though_seen"] = 12
    words = "12 patients of those tested were already seen in pretraining"
    assert words in headline(metrics)
    assert len(headlines(metrics)) == 4
    assert write(tmp_path, metrics).lead[-1].startswith(words)


def test_what_could_not_be_scored_is_said():
    nothing = {"mean": None, "ci95": [None, None], "folds": folds(0.5, missing=range(5)), "baselines": {}}
    assert headline(response() | nothing) == "response could not be scored: no fold gives a score (64 patients)."
    assert headline(response() | {"baselines": {}}).endswith("; no baseline could be compared.")


def test_the_model_stands_beside_its_baselines(tmp_path, metrics):
    page = write(tmp_path, metrics)
    assert ["clinical", "0.660", "0.610 to 0.710", "+0.056", "+0.026 to +0.086", "< 0.001"] in page.rows
    assert "frozen probe is the pretrained model unchanged" in page.text
    forest = next(alt for alt in page.alts if "this model 0.716" in alt)
    assert forest.startswith("mean C-index (Harrell) over 8 groups, chance 0.5: this model 0.716 (0.666 to 0.766); ")
    assert forest.index("clinical + omics 0.700") < forest.index("frozen probe 0.690") < forest.index("from scratch")


def with_kept(entry, mean, of):
    """An entry in which something was kept, with differences from all else."""
    others = {"ours": entry["mean"], **{name: score["mean"] for name, score in entry["baselines"].items()}}
    kept = {
        **score(mean),
        "folds": folds(mean),
        "of": of,
        "choices": [{"methods": named(of), "folds": 5}],
        "for_new_patients": ["omics"],
        "cv_log_likelihood": {fold: dict.fromkeys([*of, "stack"], value) for fold, value in (("0", -1.5), ("1", -0.5))},
        "differences": {name: against(mean, v)["difference"] for name, v in others.items() if v is not None},
        "by_group": entry.get("by_group") or {},
    }
    return entry | {"kept": kept}


def test_where_something_is_kept_the_lead_is_about_that_and_names_what_is_in_it(tmp_path, metrics):
    of = {"clinical + omics": 0.6, "ours": 0.5, "frozen probe": 0.01}
    page = write(tmp_path, with_kept(metrics, 0.724, of))
    assert page.lead[0].startswith(
        "For os, the mean C-index (Harrell) over 8 groups of the kept predictor (a stack of clinical + omics and this "
        "model) is 0.724 (95 % interval 0.674 to 0.774) in 280 patients"
    )
    assert "clinical + omics, has 0.700, and this is 0.024 higher" in page.lead[0]
    assert row(page, "kept") == [
        ["kept", "0.724", "0.674 to 0.774", "–", "–", "–"],
    ]
    assert row(page, "this model", "0.716")[0][3:] == ["+0.008", "−0.022 to +0.038", "0.21"]
    assert row(page, "clinical", "0.660")[0][3:] == ["+0.064", "+0.034 to +0.094", "< 0.001"]
    assert row(page, "frozen probe", "−1.000") == [["frozen probe", "−1.000", "0.010"]]
    assert row(page, "stack") == [["stack", "−1.000", "–"]]
    forest = next(alt for alt in page.alts if "kept 0.724" in alt)
    assert forest.index("kept 0.724") < forest.index("this model 0.716") < forest.index("clinical + omics 0.700")
    assert "For new patients, omics alone was chosen, in the same way on all patients." in page.text
    alone = headline(with_kept(response(), 0.6, {"omics": 1.1}))
    assert "the kept predictor (omics alone) is 0.600" in alone


def test_where_folds_keep_different_methods_the_lead_names_no_stack_that_none_of_them_has():
    entry = with_kept(response(), 0.6, {"omics": 1.1})
    entry["kept"]["choices"] = [{"methods": ["omics"], "folds": 3}, {"methods": ["ours", "clinical"], "folds": 2}]
    assert "the kept predictor (omics alone in 3 of 5 folds, other choices in the rest) is" in headline(entry)
    entry["kept"]["choices"] = [{"methods": ["omics"], "folds": 1}, {"methods": ["ours", "clinical"], "folds": 1}]
    assert "the kept predictor (another choice in each fold) is" in headline(entry)


def test_a_baseline_that_reads_what_the_run_leaves_out_is_told_and_not_compared(tmp_path, metrics):
    read, left_out = response(), response()
    read["baselines"] |= {"clinical": against(read["mean"], 0.99)}
    left_out["baselines"] |= {"clinical": {**against(read["mean"], 0.99), "reads_left_out": True}}
    assert headline(read).startswith("A baseline does better") and " for clinical and " in headline(read)
    assert not headline(left_out).startswith("A baseline")
    assert headline(left_out).endswith("; of what this run leaves out, clinical has 0.990.")
    worse = response()
    worse["baselines"] |= {"clinical": {**against(0.53, 0.535), "reads_left_out": True}, "image": against(0.53, 0.54)}
    assert "leaves out" not in headline(worse)
    page = write(tmp_path, metrics | {"baselines": left_out["baselines"]})
    assert row(page, "clinical (reads what is left out)")


def test_where_the_best_baseline_is_no_better_than_chance_either_this_is_said_first():
    entry = response() | score(0.46, 0.1)
    entry["baselines"] = {"image": against(0.46, 0.47)}
    assert headline(entry).startswith("Neither this model nor a baseline is better than chance: for response")


def test_a_method_that_is_not_chosen_among_in_every_fold_has_the_mean_of_the_others(tmp_path, metrics):
    entry = with_kept(metrics, 0.724, {"omics": 1.0})
    entry["kept"]["cv_log_likelihood"] = {"0": {"omics": -1.25, "stack": -1.0}, "1": {"omics": -0.75, "ours": -1.5}}
    page = write(tmp_path, entry)
    assert row(page, "omics", "−1.000") == [["omics", "−1.000", "1.000"]]
    assert row(page, "this model", "−1.500") == [["this model", "−1.500", "–"]]
    assert row(page, "stack") == [["stack", "−1.000", "–"]]


def test_what_heads_read_is_told_block_by_block(tmp_path, metrics):
    blocks = {
        "fused": {"read_in": 5, "folds": 5, "penalties": [0.1, 0.01, 0.1, 0.1, 1.0], "lost_without": 0.02},
        "rna values": {"read_in": 1, "folds": 5, "penalties": [0.3], "lost_without": None},
        "mri tower": {"read_in": 0, "folds": 5, "penalties": [], "lost_without": None},
    }
    page = write(tmp_path, metrics | {"blocks": blocks})
    assert row(page, "fused") == [["fused", "5 of 5", "0.01 to 1", "0.020"]]
    assert row(page, "rna values") == [["rna values", "1 of 5", "0.3", "–"]]
    assert row(page, "mri tower") == [["mri tower", "0 of 5", "–", "–"]]


def test_a_baseline_that_beats_what_is_kept_comes_first():
    lost = headline(with_kept(subtype(), 0.88, {"omics": 0.9, "ours": 0.2}))
    assert lost.startswith("A baseline does better: for subtype")
    assert "for omics and 0.880" in lost and "for the kept predictor (a stack of omics and this model)" in lost


def test_few_labels_are_a_curve_that_ends_with_all_of_them(tmp_path, metrics):
    page = write(tmp_path, metrics)
    curve = next(alt for alt in page.alts if "over labelled patients" in alt)
    assert "this model 0.620 with 50, 0.660 with 100, 0.716 with 224" in curve
    assert "clinical 0.640 with 50, 0.650 with 100, 0.660 with 224" in curve
    assert "from scratch 0.530 with 50, 0.610 with 224" in curve
    assert "clinical + omics" not in curve
    assert row(page, "50", "this model") == [["50", "this model", "0.620", "0.570 to 0.670", "", "", ""]]
    assert row(page, "50", "from scratch")[0][4:] == ["+0.090", "+0.060 to +0.120", "< 0.001"]
    assert row(page, "50", "clinical")[0][4:] == ["−0.020", "−0.050 to +0.010", "0.21"]
    assert "With few labels" not in write(tmp_path, metrics | {"by_labels": {}}).text


def test_measures_have_plain_names_and_say_which_way_is_better(tmp_path, metrics):
    page = write(tmp_path, metrics)
    assert row(page, "Brier score at 365.25") == [["Brier score at 365.25", "0.151", "0.131 to 0.171", "–", "lower"]]
    assert row(page, "C-index (Uno)")[0][-1] == "higher"
    assert row(page, "integrated Brier score") == [["integrated Brier score", "–", "–", "–", "lower"]]
    assert row(page, "calibration error (ECE)")[0][-1] == "lower"


def test_calibration_is_told_of_each_group_and_in_words(tmp_path, metrics):
    page = write(tmp_path, metrics)
    assert row(page, "calibration slope")[0][-1] == "nearer 1"
    assert "are D-calibrated (p > 0.05) in 1 of 2 groups, not in brca (p = 0.012)." in page.text
    assert "A slope below 1 says that predictions are too extreme" in page.text
    assert ["group", "patients", "calibration slope", "D-calibration, p"] in page.rows
    assert row(page, "blca", "40", "0.900 (0.850 to 0.950)") == [["blca", "40", "0.900 (0.850 to 0.950)", "0.4"]]
    assert ["coad", "40", "–", "–"] in page.rows
    assert row(page, "group", "of", "observed", "expected")[0][4:] == [
        "observed by expected events",
        "1-calibration, p",
    ]
    assert ["blca", "at 365.25", "12.3", "11.2", "1.100 (1.050 to 1.150)", "< 0.001"] in page.rows
    metrics["calibration"] = {"all": calibrated(0.012, 0.41)}
    assert "The predicted survival probabilities are not D-calibrated (p = 0.012)." in write(tmp_path, metrics).text
    metrics["calibration"] = {"all": calibrated(None, 0.41)}
    assert "D-calibrated" not in write(tmp_path, metrics).text
    assert "Calibration of each group" not in write(tmp_path, metrics | {"calibration": {}}).text


def test_calibration_of_classes_is_told_class_by_class(tmp_path, metrics):
    classes = {"GBM": {"observed": 91.0, "expected": 80.5}, "Oligo": {"observed": 60.0, "expected": 70.5}}
    scores = {"calibration_slope": score(0.8), "calibration_intercept/GBM": score(0.2)}
    metrics["other_tasks"] = [subtype() | {"calibration": {"all": {"n": 151, "scores": scores, "counts": classes}}}]
    page = write(tmp_path, metrics)
    assert ["all", "151", "0.800 (0.750 to 0.850)"] in page.rows
    assert ["all", "GBM", "91.0", "80.5", "0.200 (0.150 to 0.250)"] in page.rows
    assert ["all", "Oligo", "60.0", "70.5", "–"] in page.rows


def test_a_tasks_own_pictures_are_in_its_part(tmp_path, metrics, pictures):
    page = write(tmp_path, metrics, pictures)
    assert sum(alt.startswith("Kaplan-Meier") for alt in page.alts) == 1
    assert sum("responder" in alt for alt in page.alts) == len(pictures["response"])
    marked = Picture(b"<svg/>", "image/svg+xml", 300, "of another task")
    assert "of another task" not in write(tmp_path, metrics, {"elsewhere": [marked]}).alts


def test_of_many_subsets_the_telling_ones_are_drawn_and_none_is_lost(tmp_path, metrics):
    page = write(tmp_path, metrics)
    figure = next(alt for alt in page.alts if "rna alone" in alt and "all but" in alt)
    assert len(re.findall(r"\w+ alone \(", figure)) == 6
    assert len(re.findall(r"all but \w+ \(", figure)) == 6
    assert len(re.findall(r"all together \(", figure)) == 1
    for subset in metrics["by_modality_subset"]:
        assert len(row(page, subset.replace("+", " + "), str(metrics["by_modality_subset"][subset]["n"]))) == 1
    assert "Every subset of modalities (63 rows)" in page.folded
    assert "Different rows are different patients" in page.text


def test_telling_subsets_of_two_modalities_are_not_told_twice():
    labels = Telling.of({"mri": {}, "rna": {}, "mri+rna": {}}).labels()
    assert labels == {"mri": "mri alone", "rna": "rna alone", "mri+rna": "all together"}
    assert Telling.of({"mri": {}}).labels() == {"mri": "mri alone"}
    assert Telling.of({"a+b": {}, "b+c": {}, "a": {}}).every == ""


def test_a_modality_that_tells_nothing_by_itself_is_named(tmp_path, metrics):
    page = write(tmp_path, metrics | {"other_tasks": [subtype()]})
    assert "Of single modalities, rna predicts best: 0.840 (150 patients). All together reach 0.860" in page.text
    assert "Not better than chance by itself: mri." in page.text
    assert row(page, "mri", "260") == [["mri", "260", "0.350", "0.300 to 0.400", "not better than chance"]]


def test_groups_in_which_a_baseline_is_better_are_marked_and_named(tmp_path, metrics):
    page = write(tmp_path, metrics)
    assert "In 2 of 8 groups this model is below the best baseline of that group: " in page.text
    assert "blca (0.600; omics 0.630) and brca (0.620; omics 0.630)" in page.text
    assert row(page, "blca")[-1][-1] == "▼ −0.030"
    assert row(page, "skcm")[0][-1] == "+0.080"
    assert row(page, "ucec")[0][2:] == ["–", "–", "–", "–", "–", "–"]


def test_folds_splits_and_choices_are_told(tmp_path, metrics):
    page = write(tmp_path, metrics)
    assert row(page, "3", "56", "–")[0][3:] == ["0.680", "0.693", "0.720", "0.630", "0.710"]
    assert "1 fold (3)" in page.text
    assert "280 patients take part and 20 are left out" in page.text
    assert "no site is in both training and test" in page.text
    assert row(page, "no label") == [["no label", "14"]]
    assert row(page, "hash of the folds") == [["hash of the folds", "0123456789abcdef" * 4]]
    assert ["lora", "4", "0.001", "8", "0.1", "16"] in page.rows
    assert ["frozen probe", "0", "0.001", "–", "–", "12"] in page.rows


def test_where_it_comes_from_is_on_the_page(tmp_path, metrics):
    page = write(tmp_path, metrics, config="seed: 7 # <b>\n")
    for words in ("runs/pan/model; 0 of the tested patients seen", "5 min 12 s", "torch 2.15.0", "seed: 7 # <b>"):
        assert words in page.text, words
    assert "LoRA on blocks.*.qkv (4)" in page.text
    own = write(tmp_path, metrics | {"pretrain": {"from": "per_fold", "tested_though_seen": 0}})
    assert "one for each fold, pretrained without its test patients" in own.text


def test_each_part_may_be_missing(tmp_path, metrics):
    needed = {"endpoint", "metric", "chance", "n", "mean"}
    for key in sorted(metrics.keys() - needed):
        page = write(tmp_path, {name: value for name, value in metrics.items() if name != key})
        assert page.lead[0], key
    page = write(tmp_path, {name: metrics[name] for name in needed})
    assert len(page.lead) == 1
    assert "Which modalities help" not in page.text


def test_each_score_may_be_missing(tmp_path, metrics):
    def emptied(value, key=""):
        if isinstance(value, dict):
            return {name: emptied(one, name) for name, one in value.items()}
        if key == "ci95":
            return [None, None]
        if isinstance(value, list):
            return [emptied(one) for one in value]
        return None if key in ("mean", "value", "p_value", "d_calibration") else copy.copy(value)

    page = write(tmp_path, emptied(metrics))
    assert [line.split(" could")[0] for line in page.lead] == ["os", "subtype", "response"]
    assert "None" not in page.text


def test_the_same_run_gives_the_same_bytes(tmp_path, metrics, pictures):
    write(tmp_path, metrics, pictures)
    first = (tmp_path / "report.html").read_bytes()
    write_report(tmp_path, pictures)
    assert (tmp_path / "report.html").read_bytes() == first


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        write_report(tmp_path, {})


def test_a_probe_that_predicts_the_same_is_not_the_best_baseline():
    same = score(0.7, difference={"value": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0})
    sentence = plain(
        headline(response() | score(0.7) | {"baselines": {"clinical": against(0.7, 0.6), "frozen probe": same}})
    )
    assert "the best baseline, clinical, has 0.600" in sentence
    assert sentence.rstrip(".").endswith("frozen probe makes the same predictions")


def test_classes_that_folds_lack_and_choices_by_patient_are_told(tmp_path, metrics):
    metrics["remarks"] = ["The class 'C' of os has 1 patient: in fold 2 no training patient has it."]
    metrics["splits"]["inner_by_patient"] = ["0", "1"]
    text = (write(tmp_path, metrics), (tmp_path / "report.html").read_text())[1]
    assert "has 1 patient: in fold 2" in text
    assert "In folds 0 and 1, the training patients have too few sites" in text
    assert "the best answer that is the same for all patients of a fold" in text
