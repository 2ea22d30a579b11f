"""`chiasma publish`: a folder that predicts as its run does, tells what was recorded, and names nobody."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import chiasma
from finetune.publish import run as module
from finetune.publish.bases import bases, unknown
from finetune.publish.checklist import items
from finetune.run import finetune
from foundation.cohort.records import Record
from foundation.errors import CheckpointError, ConfigError, DataError
from foundation.hub.published import Published
from foundation.model.model_folder import HASHES
from launch.cli import main


@pytest.fixture(scope="module")
def run(workplace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("publishing") / "run"
    finetune(workplace / "config.yaml", [f"out={folder}", "final=true", "compare=[from scratch, frozen probe]"])
    return folder


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("there") / "small-outcomes"
    assert main(["publish", str(run), "--to", str(out), "--licence", "cc-by-4.0"]) == 0
    return out


def test_it_predicts_as_the_run_without_the_run(run, published, cohort, tmp_path):
    moved = Path(shutil.copytree(published, tmp_path / "elsewhere"))
    pd.testing.assert_frame_equal(
        chiasma.load(moved).predict(cohort), chiasma.load(run).predict(cohort), check_exact=True
    )
    pd.testing.assert_frame_equal(chiasma.load(moved).embed(cohort), chiasma.load(run).embed(cohort), check_exact=True)
    assert Published.verify(moved).kind == "fine-tuned"
    assert {path.name for path in published.iterdir()} == {
        "README.md", ".eval_results", "adapter", "kept", "model", "chiasma.json", "metrics.json"
    }  # fmt: skip


def test_the_card_tells_what_was_recorded(run, published):
    text, metrics = (published / "README.md").read_text(), json.loads((run / "metrics.json").read_text())
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "chiasma" and "survival" in front["tags"]
    values = {m["name"]: m["value"] for r in front["model-index"][0]["results"] for m in r["metrics"]}
    assert values["balanced accuracy, subtype"] == pytest.approx(metrics["kept"]["mean"], abs=1e-4)
    told = yaml.safe_load((published / ".eval_results" / "os.yaml").read_text())
    assert told[0]["value"] == pytest.approx(metrics["other_tasks"][0]["kept"]["mean"], abs=1e-4)
    for section in (
        "How to predict",
        "What it reads",
        "Patients",
        "Results",
        "Calibration",
        "Limits",
        "Reporting checklist",
    ):
        assert f"\n## {section}\n" in text
    assert f"| **what this model predicts with** | **{metrics['kept']['mean']:.3f}**" in text
    assert "not recorded" in text and "None" not in text and "nan" not in text.split("##", 1)[1].lower().split()
    for name in metrics["baselines"]:
        assert f"| {name}" in text


def test_a_model_that_was_only_pretrained_is_published_too(workplace, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copytree(workplace / "model", tmp_path / "run" / "model")
    out = tmp_path / "there" / "towers"
    command = [
        "publish",
        str(tmp_path / "run"),
        "--to",
        str(out),
        "--licence",
        "mit",
        "--cohort",
        str(workplace / "cohort"),
    ]
    assert main(command) == 0
    assert Published.verify(out).kind == "pretrained"
    found = chiasma.load(out).embed(workplace / "cohort")
    pd.testing.assert_frame_equal(
        found, chiasma.load(workplace / "model").embed(workplace / "cohort"), check_exact=True
    )


def test_a_patient_in_any_file_is_refused_and_nothing_appears(run, cohort, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    metrics = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps({**metrics, "remark": f"worst was {cohort.patients[0]}"}))
    with pytest.raises(DataError, match=r"holds the identifier of a patient.*nothing was published"):
        module.publish(copied, tmp_path / "there" / "x", "mit")
    assert list((tmp_path / "there").iterdir()) == []


def test_cohorts_without_somebody_who_took_part_are_refused(run, cohort, make_cohort, tmp_path):
    """Their names would not be searched for."""
    ones = {"rna": np.ones(16, np.float32)}
    others = [Record(patient=f"Q{n}", time_point="", site="A", group=None, omics=ones, endpoints={}) for n in range(4)]
    make_cohort(tmp_path / "others", others)
    with pytest.raises(ConfigError, match=r"56 of the 56 patients who took part in training are in no cohort"):
        module.publish(run, tmp_path / "x", "mit", [tmp_path / "others"])
    assert not (tmp_path / "x").exists()
    told = module.publish(run, tmp_path / "x", "mit", [cohort.path, tmp_path / "others"])
    assert f"none of {len({*cohort.patients}) + 4} patients is named in it" in told[1]
    assert "in the place of what was published there before" in module.publish(run, tmp_path / "x", "mit")[-1]


def test_a_copy_that_predicts_otherwise_is_refused(run, tmp_path, monkeypatch):
    whole = module.told
    monkeypatch.setattr(module, "told", lambda *rest: whole(*rest).assign(**{"os/risk": 0.0}))
    with pytest.raises(CheckpointError, match=r"the copy predicts otherwise than the run"):
        module.publish(run, tmp_path / "there" / "x", "mit")
    assert list((tmp_path / "there").iterdir()) == []


def recorded(run: Path, **changes: Any) -> Path:
    """A run whose model records something else of what it stands on."""
    path = run / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (run / "model" / HASHES).unlink()
    return run


@pytest.mark.parametrize(
    ("changes", "refused", "said", "allowed"),
    [
        (
            {"base": {"name": "theirs", "licence": "cc-by-nc-4.0"}},
            "apache-2.0",
            r"the pretrained model \(theirs\) is cc-by-nc-4\.0, which forbids commercial use",
            "cc-by-nc-4.0",
        ),
        (
            {"origins": {"mri": {"name": "vit.pt", "sha256": "", "licence": "cc-by-sa-4.0"}}},
            "mit",
            r"the weights that the mri tower began with \(vit\.pt\) is cc-by-sa-4\.0, which wants the same",
            "cc-by-sa-4.0",
        ),
    ],
)
def test_a_licence_that_what_it_stands_on_forbids_is_refused(run, tmp_path, changes, refused, said, allowed):
    copied = recorded(Path(shutil.copytree(run, tmp_path / "run")), **changes)
    with pytest.raises(ConfigError, match=said):
        module.publish(copied, tmp_path / "x", refused)
    assert not (tmp_path / "x").exists()
    assert module.publish(copied, tmp_path / "x", allowed)
    assert f"| {allowed} |" in (tmp_path / "x" / "README.md").read_text()


def test_no_derivative_is_published_under_any_licence(run, tmp_path):
    copied = recorded(Path(shutil.copytree(run, tmp_path / "run")), base={"name": "a", "licence": "cc-by-nd-4.0"})
    with pytest.raises(ConfigError, match=r"(?s)does not allow to share what was made of it.*ask its authors; without"):
        module.publish(copied, tmp_path / "x", "cc-by-nd-4.0")


def test_a_run_records_the_licence_of_the_model_that_it_adapts(run, published):
    """That of these tests has no card: this is said on the terminal and in the card."""
    told = json.loads((run / "model" / "config.json").read_text())
    assert told["base"]["name"] and told["base"]["licence"] == ""
    assert f"| the pretrained model | {told['base']['name']} | not recorded |" in (published / "README.md").read_text()
    made_from = bases(run, fine_tuned=True)
    assert any(
        sentence.startswith("not recorded: the licence of the pretrained model") for sentence in unknown(made_from)
    )


def test_a_run_of_an_earlier_version_recorded_nothing(run, tmp_path):
    copied = recorded(Path(shutil.copytree(run, tmp_path / "run")), base=None, origins=None)
    assert [(base.part, base.licence) for base in bases(copied, fine_tuned=True)] == [
        ("the pretrained model", ""),
        ("the initial weights of towers", ""),
    ]
    (copied / "model" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A base\n")
    with pytest.raises(ConfigError, match=r"is cc-by-nc-4\.0"):
        module.publish(copied, tmp_path / "x", "apache-2.0")


def test_about_yaml_answers_items_of_the_checklist(run, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    (copied / "about.yaml").write_text("design: retrospective | two centres\nfunding: none\ncitation: Us 2026\n")
    module.publish(copied, tmp_path / "x", "mit")
    text = (tmp_path / "x" / "README.md").read_text()
    assert "| Design | 5 | 5a | retrospective \\| two centres |" in text and "| Funding | 44 | 18a | none |" in text
    assert "## How to cite\n\nUs 2026\n" in text
    assert "(`ethics`)" in text and "(`design`)" not in text
    (copied / "about.yaml").write_text("desgin: retrospective\n")
    with pytest.raises(ConfigError, match=r"(?s)no item has the key 'desgin'.*did you mean 'design'"):
        module.publish(copied, tmp_path / "y", "mit")
    assert not (tmp_path / "y").exists()


def test_every_item_of_both_lists_is_in_the_checklist():
    """Titles, abstracts and interpretations are those of a paper."""
    found = items(defaultdict(str))
    claim = {int(number) for item in found for number in item.claim.split(", ") if number}
    assert claim == set(range(3, 45))
    tripod = {number for item in found for number in item.tripod.split(", ") if number}
    of_paper = {"1", "2"}
    parts = {"3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef", "20": "abc"}
    parts |= {"23": "ab", "27": "abc"}
    wanted = {str(n) + part for n in range(1, 28) for part in parts.get(str(n), [""])} - of_paper
    assert tripod == wanted


def test_an_item_that_no_run_answers_can_be_answered(run, published):
    text = (published / "README.md").read_text().split("## Reporting checklist")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(items(defaultdict(str))) and all(len(row) == 4 and row[3].strip(" |") for row in rows)


def test_wrong_input_is_one_message(run, workplace, tmp_path, capsys):
    (tmp_path / "something").mkdir()
    (tmp_path / "something" / "else").touch()
    for command, said in (
        (["publish", str(run), "--to", str(tmp_path / "something"), "--licence", "mit"], "is no published folder"),
        (
            ["publish", str(run), "--to", str(tmp_path / "x"), "--licence", "my own"],
            "is no identifier of a licence that is known here",
        ),
        (["publish", str(tmp_path), "--to", str(tmp_path / "x"), "--licence", "mit"], "does not say which cohort"),
        (["publish", str(run), "--to", "hf://nobody", "--licence", "mit"], "is no address of a model hub"),
    ):
        assert main(command) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
