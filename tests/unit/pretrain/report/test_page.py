from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from foundation.errors import DataError
from pretrain.evaluation.evaluate import evaluate
from pretrain.evaluation.space import embedding_map
from pretrain.report.page import gather_series, headline, losses, write_report


class Reader(HTMLParser):
    """Text, alternative texts of images and table rows of a page."""

    def __init__(self, html):
        super().__init__()
        self.words, self.alts, self.rows, self.skipping = [], [], [], False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words)).replace("\u00a0", " ")

    def handle_starttag(self, tag, attrs):
        self.skipping = tag == "style"
        if tag == "img":
            self.alts.append(dict(attrs)["alt"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if not self.skipping:
            self.words.append(data)
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def metrics(make, kinds):
    train = make(80, "t", groups=("one", "two"), absent=0.1)
    held_out = make(40, "h", groups=("one", "two"), absent=0.1)
    result = evaluate(train, held_out, pairs=[("mri", "rna")], endpoint_kinds=kinds, seed=0, permutations=99)
    result |= {
        "cohort": "egg",
        "parameters": {"mri": 21_000_000, "omics": 4_000_000},
        "patterns_seen": {"mri+rna": 300, "rna": 100},
        "seconds": 212.3,
        "versions": {"torch": "2.15.0"},
        "oracle": {"subtype": {"balanced_accuracy": {"oracle": 0.931, "chance": 0.33}}},
    }
    drawn = embedding_map(held_out, "fused", {"subtype": ["Oligo", "Astro", "GBM"]})
    return result, drawn


def training_rows(steps=30):
    rows = []
    for step in range(1, steps + 1):
        row = {"step": step, "epoch": step / 5, "samples_seen": 64 * step, "split": "train", "loss": 5 / step}
        rows.append(row | {"infonce": 4 / step, "learning_rate": 1e-3, "samples_per_second": 321.0, "waiting": 0.01})
    rows.append({"step": steps, "split": "held_out", "loss": 2.0, "retrieval": {"mri->rna": {"recall@10": 0.5}}})
    rows.append({"step": steps, "split": "non-finite", "rows": [17, 18]})
    return rows


def write(run, metrics, *, rows=(), drawn=None, config=""):
    (run / "metrics.json").write_text(json.dumps(metrics, allow_nan=False))
    if rows:
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if drawn is not None:
        (run / "embedding_map.json").write_text(json.dumps(drawn))
    if config:
        (run / "config.yaml").write_text(config)
    write_report(run)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "SECRET" not in html
    assert "http:" not in html.replace("http://www.w3.org", "")
    return Reader(html)


def test_the_whole_report(tmp_path, metrics):
    result, drawn = metrics
    page = write(tmp_path, result, rows=training_rows(), drawn=drawn, config="seed: 0 # <b>\n")
    assert "Pretraining on egg" in page.text
    assert page.text.index("From mri alone, the right patient's rna is among the first 10 of") < page.text.index(
        "recall@1"
    )
    for words in ("25 million", "3 min 32 s", "1,920", "steps skipped", "321", "torch 2.15.0", "seed: 0 # <b>"):
        assert words in page.text, words
    retrieval = result["retrieval"]["mri->rna"]
    row = next(row for row in page.rows if row[0] == "mri → rna")
    assert row[6] == f"{retrieval['median_rank']:g}"
    probe = result["probes"]["subtype"]["mri"]
    row = next(row for row in page.rows if row[:3] == ["subtype", "mri", "balanced accuracy"])
    assert row[3:] == [
        f"{probe['value']:.3f}",
        "{:.2f} to {:.2f}".format(*probe["ci95"]),
        "–",
        "0.33",
        "0.931",
        str(probe["n_train"]),
        str(probe["n_test"]),
    ]
    titles = [alt for alt in page.alts if alt.startswith("balanced accuracy of probes")]
    assert [title.split(":")[0].split(" of ")[-1] for title in titles] == ["subtype", "site (hospital)"]
    assert sum(alt.startswith("Map of") for alt in page.alts) == 3
    assert any("Oligo" in alt for alt in page.alts)
    assert ["mri + rna", "300", "75 %"] in [[cell.replace("\u00a0", " ") for cell in row] for row in page.rows]
    assert any(row[0] == "one" for row in page.rows)


@pytest.mark.parametrize(
    "missing",
    [
        "retrieval",
        "alignment",
        "uniformity",
        "probes",
        "site_probe",
        "oracle",
        "versions",
        "patterns_seen",
        "parameters",
    ],
)
def test_each_part_may_be_missing(tmp_path, metrics, missing):
    page = write(tmp_path, {key: value for key, value in metrics[0].items() if key != missing})
    assert "Pretraining on egg" in page.text
    assert "The course of training" not in page.text
    assert "Map of the embeddings" not in page.text


def test_next_to_nothing_is_still_a_page(tmp_path):
    skipped = {"skipped": "only 3 held-out patients have both; 10 are needed", "n_train": 4, "n_test": 3}
    metrics = {
        "retrieval": {"mri->rna": {"n": 3, "skipped": "only 3 held-out patients have both"}},
        "alignment": {"mri~rna": None},
        "uniformity": {"mri": None},
        "probes": {"subtype": {"mri": skipped}},
        "site_probe": {"mri": skipped},
        "parameters": 12,
    }
    page = write(tmp_path, metrics, drawn={"view": "mri", "x": [], "y": []})
    assert "Retrieval could not be measured" in page.text
    assert "only 3 held-out patients have both; 10 are needed" in page.text
    assert page.alts == []


def result(recall, p_value):
    return {"n": 57, "recall@10": recall, "chance@10": 10 / 57, "p_value": p_value}


def test_headline_says_the_answer():
    words = headline({"mri->omics": result(0.61, 0.001), "omics->mri": result(0.55, 0.001)}).replace("\u00a0", " ")
    assert words == (
        "From mri alone, the right patient's omics is among the first 10 of 57 in 61 % of cases "
        "(chance 18 %, p = 0.001)."
    )


@pytest.mark.parametrize("bad", [result(0.19, 0.4), result(0.1, 0.01)])
def test_headline_says_failure_first(bad):
    assert headline({"mri->omics": bad}).startswith("Not better than chance: from mri alone")
    both = headline({"mri->omics": result(0.61, 0.001), "omics->mri": bad})
    assert both.startswith("omics → mri is not better than chance. From mri alone")


def test_headline_skips_what_was_not_measured():
    skipped = {"n": 3, "skipped": "few"}
    assert headline({"mri->cnv": skipped, "mri->rna": result(0.61, 0.001)}).startswith(
        "From mri alone, the right patient's rna"
    )


def test_series_are_losses_then_retrieval_then_speed():
    series = gather_series(training_rows(3))
    names = [one.name for one in series]
    assert names[:3] == ["loss", "infonce", "recall@10, mri → rna"]
    assert names[3:] == ["learning rate", "samples per second", "share of time waiting for data"]
    assert series[0].train == [(1, 5.0), (2, 2.5), (3, 5 / 3)]
    assert series[0].held_out == [(3, 2.0)]


def test_a_loss_that_was_not_finite_leaves_a_gap():
    rows = training_rows(3)
    rows[1]["loss"] = None
    assert gather_series(rows)[0].train == [(1, 5.0), (3, 5 / 3)]


def test_long_runs_are_averaged_and_stay_small(tmp_path, metrics):
    write(tmp_path, metrics[0], rows=training_rows(5000))
    assert (tmp_path / "report.html").stat().st_size < 2e6


def test_the_same_run_gives_the_same_bytes(tmp_path, metrics):
    write(tmp_path, metrics[0], rows=training_rows(), drawn=metrics[1])
    first = (tmp_path / "report.html").read_bytes()
    write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == first


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path, metrics):
    with pytest.raises(DataError, match="is missing"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics[0]))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        write_report(tmp_path)


def test_what_training_did_not_improve_and_what_fusing_made_worse_is_said():
    probes = {
        "os": {"clinical": {"value": 0.7}, "fused": {"value": 0.6, "before_training": 0.61}},
        "subtype": {"mri": {"value": 0.7}, "fused": {"value": 0.9, "before_training": 0.7}},
        "grade": {"fused": {"skipped": "too few"}},
    }
    assert losses(probes) == [
        "The fused view predicts no better than before training: os (0.61 before, 0.60 after).",
        (
            "One view alone predicts better than the fused one: os (clinical 0.70, fused 0.60). A view that some "
            "patients lack is scored on fewer patients."
        ),
    ]
    assert losses({"subtype": probes["subtype"]}) == []
