"""Who is held out is drawn, or named in a file; a run says how many, and is known by whom it learns from."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.errors import CheckpointError, ConfigError, DataError
from foundation.model.seen_patients import SeenPatients
from pretrain.config import PretrainConfig
from pretrain.run import pretrain
from pretrain.split import HeldOut, split

COHORT = SimpleNamespace(
    patients=np.array([f"P{i // 2}" for i in range(20)], dtype=object),
    sites=np.array([f"S{i // 5}" for i in range(20)], dtype=object),
)
"""Ten patients with two records each."""

CONFIG = """
out: run
held_out: {patients: lists/held_out.txt}
towers:
  mri: {tower: vit2d, arguments: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}, max_slices: 1, pool_heads: 2}
  omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}
width: 16
fusion: {fusion: gated_mean}
objectives:
  contrast: {loss: {objective: infonce}}
batch_size: 8
epochs: 1
permutations: 100
"""


def named(folder: Path, text: str) -> HeldOut:
    (folder / "list.txt").write_text(text, encoding="utf-8")
    return HeldOut(patients=folder / "list.txt")


@pytest.mark.parametrize("by", ["patient", "site"])
def test_a_fraction_of_patients_or_sites_is_held_out_with_all_their_records(by):
    training, held_out = split(COHORT, HeldOut(fraction=0.25, by=by), 0)
    np.testing.assert_array_equal(np.union1d(training, held_out), np.arange(20))
    units = COHORT.sites if by == "site" else COHORT.patients
    assert not set(units[training]) & set(units[held_out])
    assert len(set(units[held_out])) == (1 if by == "site" else 2)


def test_exactly_the_patients_of_a_file_are_held_out_whatever_the_seed(tmp_path):
    held_out = named(tmp_path, "\ufeffP7\n\n  P1 \r\nP7\n")
    for seed in (0, 1):
        training, outside = split(COHORT, held_out, seed)
        assert outside.tolist() == [2, 3, 14, 15]
        np.testing.assert_array_equal(np.union1d(training, outside), np.arange(20))
    assert held_out.training_records(20) == 18
    assert HeldOut(fraction=0.3).training_records(20) == pytest.approx(14)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("P1\nX9\nP0000\n", DataError, "2 patients are not in the cohort, first 'P0000'"),
        ("\n \n", DataError, "names no patient"),
        ("\n".join(f"P{i}" for i in range(10)), ConfigError, "holding out 10 of 10 patients leaves one side empty"),
    ],
)
def test_a_file_that_cannot_be_held_out_is_refused(tmp_path, text, kind, message):
    with pytest.raises(kind, match=message) as caught:
        split(COHORT, named(tmp_path, text), 0)
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        split(COHORT, HeldOut(patients=tmp_path / "nowhere.txt"), 0)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match="is not text"):
        split(COHORT, HeldOut(patients=tmp_path / "list.txt"), 0)


@pytest.fixture(scope="module")
def workplace(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    (folder / "config.yaml").write_text(f"cohort: {simulated / 'cohort'}{CONFIG}")
    (folder / "lists").mkdir()
    patients = sorted(set(PreparedCohort(simulated / "cohort").patients))
    (folder / "lists" / "held_out.txt").write_text("\n".join(patients[::3]))
    return folder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["held_out.fraction=0.2"], "either `fraction` or `patients`"),
        (["held_out.by=site"], "leave out one"),
        (["held_out={fraction: null}"], "either `fraction` or `patients`"),
    ],
)
def test_there_is_one_way_to_say_who_is_held_out(workplace, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(PretrainConfig, workplace / "config.yaml", overrides)
    assert load_config(PretrainConfig, workplace / "config.yaml", ["held_out={}"]).held_out.fraction == 0.2


def test_a_run_says_how_many_were_held_out_and_is_known_by_whom_it_learns_from(simulated, workplace, tmp_path):
    run = tmp_path / "run"
    pretrain(workplace / "config.yaml", [f"out={run}"])
    everybody = sorted(set(PreparedCohort(simulated / "cohort").patients))
    assert "60 patients, 20 of them held out)" in (run / "model" / "README.md").read_text()
    seen = SeenPatients.read(run / "model")
    assert seen is not None
    assert [name for name, known in zip(everybody, seen.among(everybody), strict=True) if not known] == everybody[::3]
    assert "held_out.txt" in (run / "report.html").read_text()

    # The file may move, and the resolved config be used again; another set of patients is another run.
    (tmp_path / "moved.txt").write_text("\n".join(everybody[::3]))
    before = json.loads((run / "before_training.json").read_text())
    pretrain(run / "config.yaml", [f"held_out.patients={tmp_path / 'moved.txt'}"])
    assert json.loads((run / "before_training.json").read_text()) == before
    (tmp_path / "moved.txt").write_text("\n".join(everybody[1::3]))
    with pytest.raises(CheckpointError, match="the training patients"):
        pretrain(run / "config.yaml", [f"held_out.patients={tmp_path / 'moved.txt'}"])
