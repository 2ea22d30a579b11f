"""report.html of a pretraining run: whole, with parts missing, and the same bytes each time."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from foundation.errors import DataError
from pretrain.evaluation.evaluate import evaluate
from pretrain.evaluation.space import embedding_map
from pretrain.report.page import write_report


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


def test_the_whole_report(tmp_path, metrics, training_rows):
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


def test_long_runs_are_averaged_and_stay_small(tmp_path, metrics, training_rows):
    write(tmp_path, metrics[0], rows=training_rows(5000))
    assert (tmp_path / "report.html").stat().st_size < 2e6


def test_the_same_run_gives_the_same_bytes(tmp_path, metrics, training_rows):
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
