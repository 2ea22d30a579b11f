"""Pretraining on three cohorts, of pairs, of scans alone and of omics alone; and what of them is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort
from foundation.config import load_config
from foundation.errors import CheckpointError, ConfigError
from foundation.model.seen_patients import SeenPatients
from foundation.progress import Silent
from foundation.yaml_text import dump, parse
from launch.cli import main
from pretrain.cohorts import open_cohorts
from pretrain.config import PretrainConfig
from pretrain.run import pretrain
from pretrain.split import HeldOut, split
from pretrain.step import Step

CONFIG = """
out: run
seed: 1
held_out: {fraction: 0.2}
towers:
  mri: {tower: vit2d, arguments: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}, max_slices: 1, pool_heads: 2}
  omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}
width: 16
fusion: {fusion: gated_mean}
objectives:
  contrast: {loss: {objective: infonce}}
  masked: {loss: {objective: masked_omics, width: 8}}
dropout: {default: 0.2}
batch_size: 8
epochs: 2
permutations: 100
"""
PARTS = ("pairs", "scans", "omics")
THREE = "cohorts: [{path: pairs}, {path: scans, weight: 2}, {path: omics}]\npairs: 0.5\n"


@pytest.fixture(scope="module")
def workplace(divided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohorts")
    for name in ("pairs", "scans", "omics"):
        (folder / name).symlink_to(divided / name)
    write(folder, "three", THREE)
    return folder


def write(folder: Path, name: str, cohorts: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(cohorts + CONFIG)
    return path


def run(folder: Path, name: str, *changes: str) -> dict:
    return pretrain(folder / f"{name}.yaml", [f"out={folder / name}", *changes])[0]


@pytest.fixture(scope="module")
def three(workplace: Path) -> tuple[Path, dict]:
    return workplace / "three", run(workplace, "three")


def losses(folder: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["gradient_norm"], row["samples_seen"]) for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_three_cohorts_are_pretrained_on_together(three, workplace):
    folder, metrics = three
    assert metrics["cohort"] == "pairs, scans and omics"
    told = {entry["cohort"]: entry for entry in metrics["cohorts"]}
    assert sum(entry["share"] for entry in told.values()) == pytest.approx(1)
    assert told["pairs"]["pairs"] > 0 and told["scans"]["pairs"] == told["omics"]["pairs"] == 0
    samples = losses(folder)[-1][-1]
    assert told["pairs"]["share_of_pairs"] == pytest.approx(0.5, abs=1 / samples)
    assert told["scans"]["times_each_other"] == pytest.approx(2 * told["omics"]["times_each_other"], rel=0.2)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["contrast/mri~omics/rows"] > 0 for row in rows), "every batch has pairs"
    assert {"mri", "rna", "mutation", "cnv", "protein"} == set(
        json.loads((folder / "model" / "preprocessing.json").read_text())["modalities"]
    )


def test_every_batch_that_is_trained_on_holds_its_share_of_pairs(workplace, monkeypatch):
    batches, losses = [], Step.losses

    def seen(self, batch, *args):
        batches.append(batch.rows.numpy())
        return losses(self, batch, *args)

    monkeypatch.setattr(Step, "losses", seen)
    shutil.copy(workplace / "three.yaml", workplace / "watched.yaml")
    run(workplace, "watched", "pairs=0.25", "epochs=1", "accumulate=2")
    present = open_cohorts(load_config(PretrainConfig, workplace / "three.yaml")).present_NM
    paired = present[:, 0] & present[:, 1:].any(axis=1)
    assert len(batches) > 4 and [int(paired[rows].sum()) for rows in batches] == [2] * len(batches)


def test_the_report_and_the_card_know_all_cohorts(three):
    folder, _ = three
    page, card = (folder / "report.html").read_text(), (folder / "model" / "README.md").read_text()
    assert "The cohorts" in page and "times drawn, each pair" in page
    for name in ("pairs", "scans", "omics"):
        assert f"| {name} |" in card


def test_the_patients_seen_are_those_of_all_cohorts(three, workplace):
    seen = SeenPatients.read(three[0] / "model")
    assert seen is not None
    count = {name: int(seen.among(np.unique(PreparedCohort(workplace / name).patients)).sum()) for name in PARTS}
    assert sum(count.values()) == len(seen.hashes) == 48 and all(count.values())


def test_one_cohort_named_either_way_is_the_same_run(workplace):
    write(workplace, "single", "cohort: pairs\n")
    write(workplace, "listed", "cohorts: [{path: pairs, weight: 3}]\n")
    one, other = run(workplace, "single"), run(workplace, "listed")
    assert losses(workplace / "single") == losses(workplace / "listed")
    ours, theirs = weights(workplace / "single"), weights(workplace / "listed")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert "cohorts" not in one and one["retrieval"] == other["retrieval"]
    pretrain(workplace / "listed.yaml", [f"out={workplace / 'single'}"])


def test_workers_change_nothing(workplace, three):
    shutil.copy(workplace / "three.yaml", workplace / "workers.yaml")
    run(workplace, "workers", "workers=2")
    assert losses(workplace / "workers") == losses(three[0])


def test_another_weight_share_or_order_is_another_run(workplace, three):
    for change, key in (
        ("cohorts.1.weight=3", "cohorts changed"),
        ("pairs=0.25", "pairs changed"),
        ("cohorts=[{path: scans, weight: 2}, {path: pairs}, {path: omics}]", "the order of the cohorts"),
        ("cohorts=[{path: pairs}, {path: scans, weight: 2}]", "the cohort 'omics'"),
    ):
        change = change.replace("path: ", f"path: {workplace}/")
        with pytest.raises(CheckpointError, match=key):
            pretrain(workplace / "three.yaml", [f"out={three[0]}", change])


def test_a_plan_counts_the_records_of_all(workplace, capsys):
    assert main(["pretrain", str(workplace / "three.yaml"), "--plan"]) == 0
    records = sum(len(PreparedCohort(workplace / name)) for name in PARTS)
    steps = round(2 * 0.8 * records / 8)
    printed = capsys.readouterr().out
    assert f"about {steps:,} steps of 8 records" in printed
    files = [path for name in PARTS for path in (workplace / name / "records").rglob("*") if path.is_file()]
    stored = sum(path.stat().st_size for path in files) / records
    assert f"stored {stored / 1e6:,.2f} MB per record" in printed


@pytest.mark.parametrize(
    ("cohorts", "said"),
    [
        ("cohorts: [{path: pairs}, {path: ./omics/../pairs}]", "are one cohort"),
        ("cohorts: [{path: pairs}, {path: omics, name: pairs}]", "two are called 'pairs'"),
        ("cohorts: [{path: scans}, {path: omics}]\npairs: 0.5", "none of 3[0-9] training records have both sides"),
        (
            "cohorts: [{path: pairs}, {path: scans}]\npreprocessing: {modalities: [rna, cnv]}",
            "cohorts, 'scans': the model would not read this cohort by itself: has none of the modalities",
        ),
        ("cohort: scans\ncohorts: [{path: omics}]", "give either `cohort`"),
        ("", "give either `cohort`"),
        ("cohorts: [{path: pairs, weight: 0}, {path: omics}]", "line 1, cohorts.0.weight: .*greater than 0"),
        ("cohorts: []", "cohorts: needs 1 or more"),
        ("cohorts: [{path: pairs}, {path: omics}]\npairs: 1", "line 2, pairs: .*less than 1"),
        ("cohorts: [{path: pairs}, {path: omics}]\npairs: 0.99\nbatch_size: 30", "would hold .* pairs in 'pairs'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(workplace, tmp_path, capfd, cohorts, said):
    import re

    path = workplace / "wrong.yaml"
    text = CONFIG.replace("batch_size: 8\n", "") if "batch_size" in cohorts else CONFIG
    path.write_text(cohorts + "\n" + text)
    assert main(["pretrain", str(path), f"out={tmp_path / 'run'}"]) == 2
    error = capfd.readouterr().err
    assert re.search(said, error) and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_who_is_named_as_in_a_cohort_is_held_out_of_all_that_use_the_name(workplace, divided, tmp_path):
    """Cohorts that count for themselves: fine-tuning on one of them names its patients as that one does."""
    cohorts = {name: PreparedCohort(divided / name) for name in ("pairs", "omics")}
    for cohort in cohorts.values():
        cohort.patients = np.array([f"{number:03d}" for number in range(len(cohort))], dtype=object)
    united = UnitedCohort(cohorts, equal_names="different_patients")
    (tmp_path / "named.txt").write_text("003\nomics:005\n")
    training, held_out = split(united, HeldOut(patients=tmp_path / "named.txt"), 0)
    assert sorted(united.patients[held_out]) == ["omics:003", "omics:005", "pairs:003"]
    assert len(training) == len(united) - 3


@pytest.fixture(scope="module")
def again(divided: Path, workplace: Path) -> Path:
    """A cohort of the patients of ``pairs`` once more, omics alone."""
    spec = parse((divided / "pairs.yaml").read_text(encoding="utf-8")) | {"name": "again"}
    del spec["modalities"]["mri"]
    (workplace / "again-cohort.yaml").write_text(dump(spec), encoding="utf-8")
    prepare(workplace / "again-cohort.yaml", out=workplace / "again", workers=1, progress=Silent())
    write(workplace, "both", "cohorts: [{path: pairs}, {path: again}]\n")
    return workplace / "again"


def test_equal_names_are_refused_until_it_is_said_what_they_mean(workplace, again):
    with pytest.raises(ConfigError, match="20 names of patients are in both 'pairs' and 'again'"):
        run(workplace, "both")


@pytest.mark.parametrize("by", ["patient", "site"])
def test_a_patient_in_two_cohorts_is_on_one_side_in_both(workplace, again, by):
    config = load_config(PretrainConfig, workplace / "both.yaml", ["equal_names=same_patient"])
    cohort = open_cohorts(config)
    training, held_out = split(cohort, HeldOut(fraction=0.3, by=by), 0)
    assert len(training) + len(held_out) == len(cohort)
    assert not set(cohort.own_names[training]) & set(cohort.own_names[held_out])


def test_patients_told_apart_are_remembered_by_their_own_names(workplace, again):
    run(workplace, "both", "equal_names=different_patients", "epochs=0.5")
    seen = SeenPatients.read(workplace / "both" / "model")
    names = set(PreparedCohort(again).patients)
    assert seen is not None and len(seen.hashes) == int(seen.among(names).sum()) > 0
    assert not seen.among({f"pairs:{name}" for name in names}).any()


def test_pretraining_for_a_fold_keeps_the_other_cohorts(workplace, monkeypatch):
    from launch import pretrained

    asked = []
    monkeypatch.setattr("pretrain.run.pretrain", lambda path, changes: asked.append(changes) or ({}, Path("run")))
    pretrained.pretrain_model(workplace / "three.yaml", [f"cohort={workplace / 'omics'}", "out=here"])
    assert asked == [["out=here"]]
    with pytest.raises(ConfigError, match="is not among its `cohorts`"):
        pretrained.pretrain_model(workplace / "three.yaml", [f"cohort={workplace / 'other'}", "out=here"])
    write(workplace, "one", "cohort: pairs\n")
    pretrained.pretrain_model(workplace / "one.yaml", ["cohort=other", "out=here"])
    assert asked[1] == ["cohort=other", "out=here"]


def test_a_copy_of_a_cohort_is_that_cohort(workplace, tmp_path):
    shutil.copytree(workplace / "pairs", tmp_path / "copy")
    write(workplace, "copied", f"cohorts: [{{path: pairs}}, {{path: {tmp_path / 'copy'}, name: another}}]\n")
    with pytest.raises(ConfigError, match="are one cohort"):
        run(workplace, "copied")
