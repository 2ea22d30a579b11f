"""A pretraining run that is killed and started again ends with the same bits; damaged checkpoints are passed over."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.cohort.prepare import prepare
from foundation.data.alignment import Aligned
from foundation.errors import CheckpointError, ChiasmaError, ConfigError, DataError
from foundation.progress import Silent
from foundation.simulation.simulate import simulate
from pretrain.run import pretrain

REPOSITORY = Path(__file__).parents[2]
SHARD = "shard-00001-model-00001-of-00001.safetensors"
"""What one process writes of a checkpoint's part."""

CONFIG = """
cohort: cohort
out: run
seed: 3
held_out: {fraction: 0.4}
towers:
  mri: {tower: vit2d, model: vit_tiny_patch16_224, arguments: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2},
        max_slices: 2, pool_heads: 2}
  omics: {tower: omics_transformer, tokenizer: {tokenizer: gene}, width: 16, depth: 1, heads: 2, max_tokens: 24}
width: 16
fusion: {fusion: gated_mean}
objectives:
  contrast: {loss: {objective: infonce}}
  masked: {loss: {objective: masked_omics, width: 8}}
dropout: {default: 0.3, channels: 0.3}
augmentation: {}
epochs: 4
batch_size: 6
accumulate: 2
ema: 0.9
activation_checkpointing: true
checkpoint_every: 3
keep_checkpoints: 2
permutations: 100
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    simulate(folder / "source", patients=40, seed=6, progress=lambda done, total: None)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    """A run that nothing happened to."""
    pretrain(workplace / "config.yaml", ["out=" + str(workplace / "whole")])
    return workplace / "whole"


def losses(run: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["samples_seen"], row["loss"], row["gradient_norm"]) for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def test_the_run_folder_is_complete(whole):
    names = {path.name for path in whole.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "metrics.json", "report.html", "checkpoints", "model"}
    metrics = json.loads((whole / "metrics.json").read_text())
    assert set(metrics["retrieval"]) == {"mri->omics", "omics->mri"}
    assert len(list((whole / "checkpoints").glob("step-*"))) == 2
    assert [(step, samples) for step, samples, *_ in losses(whole)] == [(n, 12 * n) for n in range(1, 9)]


def _listen() -> None:
    """A runner in the background of a shell ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(workplace: Path, run: Path) -> subprocess.Popen:
    """A run in a process of its own, which has just written its first checkpoint."""
    command = [sys.executable, "-m", "launch.cli", "pretrain", str(workplace / "config.yaml"), f"out={run}"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_listen
    )
    while process.poll() is None and not list((run / "checkpoints").glob("step-*")):
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGKILL, -9, ""),
        (signal.SIGTERM, 143, "SIGTERM"),
        pytest.param(signal.SIGUSR1, 75, "SIGUSR1", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_ended_and_started_again_it_ends_with_the_same_bits(workplace, whole, number, code, said):
    run = workplace / number.name
    process = start(workplace, run)
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == code
    assert not (run / "model").exists(), "it was to be ended in the middle"
    assert said in message and "Traceback" not in message
    if number == signal.SIGINT:
        last = "chiasma pretrain: interrupted; start the same command again and it goes on from its newest checkpoint"
        assert message.splitlines()[-1] == f"{last}, if there is one"
    pretrain(workplace / "config.yaml", [f"out={run}"])
    assert losses(run) == losses(whole)
    assert same_weights(run, whole)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can make a folder")
def test_a_run_folder_that_cannot_be_made_is_named(workplace):
    with pytest.raises(ConfigError, match=r"/proc/run: no folder can be made there\n.*correct `out`"):
        pretrain(workplace / "config.yaml", ["out=/proc/run"])


def test_two_processes_do_not_train_in_one_folder(workplace):
    run = workplace / "shared"
    process = start(workplace, run)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(DataError, match=f"is being trained in by process {process.pid}") as caught:
        pretrain(workplace / "config.yaml", [f"out={run}"])
    assert caught.value.exit_code == 2
    process.kill()
    process.communicate()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_passed_over(workplace, whole, tmp_path, damage, capsys):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "model")
    weights = newest(run) / "module" / SHARD
    content = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        weights.write_bytes(content[:-10])
    else:
        weights.unlink()
    pretrain(workplace / "config.yaml", [f"out={run}"])
    assert "damaged checkpoint" in capsys.readouterr().out
    assert same_weights(run, whole)
    assert losses(run) == losses(whole)


def test_no_whole_checkpoint_is_an_error(workplace, whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for folder in (run / "checkpoints").glob("step-*"):
        (folder / "optimiser" / SHARD).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        pretrain(workplace / "config.yaml", [f"out={run}"])


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch was-run",))


@pytest.mark.parametrize("name", ["module", "average", "optimiser", "random"])
def test_a_pickle_in_place_of_tensors_is_not_run(workplace, whole, tmp_path, name, monkeypatch, capsys):
    """Even where somebody wrote its hash into the manifest."""
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    file = newest(run) / name / ("00000.safetensors" if name == "random" else SHARD)
    torch.save(Hostile(), file)
    manifest = json.loads((newest(run) / "checkpoint.json").read_text())
    manifest["files"][f"{name}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (newest(run) / "checkpoint.json").write_text(json.dumps(manifest))
    pretrain(workplace / "config.yaml", [f"out={run}"])
    assert "passed over a damaged checkpoint: step-00000008" in capsys.readouterr().out
    assert not (tmp_path / "was-run").exists()
    assert same_weights(run, whole)


def test_a_checkpoint_of_an_earlier_version_is_refused_in_clear_words(workplace, whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for folder in (run / "checkpoints").glob("step-*"):
        manifest = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps({**manifest, "format_version": 1}))
    with pytest.raises(CheckpointError, match="is of format 1, written by an earlier version of chiasma"):
        pretrain(workplace / "config.yaml", [f"out={run}"])


def test_moments_are_kept_by_the_name_of_their_parameter(whole):
    moments, weights = (load_file(newest(whole) / name / SHARD) for name in ("optimiser", "module"))
    names = {key.rpartition("/")[0] for key in moments}
    assert names and names <= set(weights)
    assert all(moments[f"{name}/exp_avg"].shape == weights[name].shape for name in names)


def test_a_half_written_checkpoint_is_invisible(workplace, whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    newest(run).rename(run / "checkpoints" / ".partial-00000008")
    pretrain(workplace / "config.yaml", [f"out={run}"])
    assert same_weights(run, whole)


def test_a_changed_config_does_not_go_on_and_names_the_keys(workplace, whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    written = (run / "config.yaml").read_text()
    changes = ["optimiser.learning_rate=0.5", "towers.mri.arguments.depth=2", "checkpoint_every=1"]
    with pytest.raises(CheckpointError, match="another run: ") as caught:
        pretrain(workplace / "config.yaml", [f"out={run}", *changes])
    assert "towers.mri.arguments.depth and optimiser.learning_rate changed since" in str(caught.value)
    assert (run / "config.yaml").read_text() == written


def test_a_changed_cohort_does_not_go_on(workplace, whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    cohort = Path(shutil.copytree(workplace / "cohort", tmp_path / "cohort"))
    manifest = cohort / "cohort.json"
    manifest.write_text(manifest.read_text().replace('"name": "simulated"', '"name": "simulates"'))
    with pytest.raises(CheckpointError, match="the cohort changed"):
        pretrain(workplace / "config.yaml", [f"out={run}", f"cohort={cohort}"])


def test_a_loss_that_is_not_finite_updates_nothing_and_ends_the_run(workplace, tmp_path, monkeypatch):
    from pretrain.step import Step

    before, losses = {}, Step.losses

    def spoilt(self, batch, logged, share):
        module = before["module"] = self.pretraining
        before.setdefault("weights", {name: value.clone() for name, value in module.state_dict().items()})
        for loss in losses(self, batch, logged, share):
            yield loss * float("nan")

    monkeypatch.setattr(Step, "losses", spoilt)
    with pytest.raises(ChiasmaError, match="3 steps in a row"):
        pretrain(workplace / "config.yaml", [f"out={tmp_path / 'run'}"])
    after = before["module"].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before["weights"].items())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [len(row["rows"]) for row in rows if row["split"] == "non-finite"] == [12] * 3


def test_a_learning_rate_that_is_far_too_large_ends_the_run(workplace, tmp_path):
    run = tmp_path / "run"
    changes = ["optimiser.learning_rate=1e30", "optimiser.warm_up=0", "checkpoint_every=1"]
    with pytest.raises(ChiasmaError, match="not finite in 3 steps in a row") as caught:
        pretrain(workplace / "config.yaml", [f"out={run}", *changes])
    assert caught.value.exit_code == 1 and "lower optimiser.learning_rate" in str(caught.value)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bad = [row for row in rows if row["split"] == "non-finite"]
    assert len(bad) == 3 and all(len(row["rows"]) == 12 for row in bad)
    before, after = (load_file(path / "module" / SHARD) for path in sorted((run / "checkpoints").glob("step-*")))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.isfinite(value).all() for value in after.values())


def test_batches_without_any_pair_break_nothing(workplace, tmp_path):
    """Dropout leaves every record one modality, so that the contrast has nothing to compare, in every batch."""
    run = tmp_path / "run"
    pretrain(workplace / "config.yaml", [f"out={run}", "dropout.default=1.0", "objectives.masked.weight=1e-9"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["contrast"] for row in rows] == [0.0] * 8
    assert all(0 <= row["gradient_norm"] < 1e-3 for row in rows)


def test_a_cohort_in_which_nobody_is_paired_is_refused(workplace, tmp_path, monkeypatch):
    presence = Aligned.presence

    def lonely(self, rows):
        """Of what a patient has, the first."""
        present_BM, channels = presence(self, rows)
        return present_BM & (present_BM.cumsum(axis=1) == 1), channels

    monkeypatch.setattr(Aligned, "presence", lonely)
    with pytest.raises(ConfigError, match="none of 24 training patients has both sides of any pair") as caught:
        pretrain(workplace / "config.yaml", [f"out={tmp_path / 'run'}"])
    assert caught.value.where == "objectives.contrast"


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("preprocessing.modalities=[mri, methylation]", ConfigError, "methylation"),
        ("preprocessing.modalities=[mri]", ConfigError, "is for omics, and no modality is left for it"),
        ("preprocessing.modalities=[rna]", ConfigError, "reads image modalities, and none is called 'mri'"),
        ("dropout.modalities.ct=0.5", ConfigError, "no modality is called 'ct'"),
        ("towers.ct.tower=vit2d", ConfigError, "towers.ct.modalities: tower 'ct' reads image modalities"),
        ("optimiser.layer_decay=0.75", ConfigError, "no tower has pretrained weights"),
        ("out=config.yaml/run", ConfigError, "is a file, not a folder"),
        ("towers.mri.arguments.patch_size=64", ConfigError, "64"),
        ("cohort=nowhere", DataError, "not a prepared cohort"),
        ("held_out.fraction=0.001", ConfigError, "leaves one side empty"),
        ("towers.mri.tower=vit2", ConfigError, "vit2d"),
    ],
)
def test_what_cannot_be_trained_is_one_message(workplace, tmp_path, monkeypatch, override, kind, message):
    monkeypatch.chdir(workplace)
    with pytest.raises(kind, match=message) as caught:
        pretrain(workplace / "config.yaml", [f"out={tmp_path / 'run'}", override])
    assert caught.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which meets its own deprecations
def test_a_run_that_was_compiled_goes_on_uncompiled(workplace, whole, tmp_path):
    run = tmp_path / "run"
    pretrain(workplace / "config.yaml", [f"out={run}", "compile=true"])
    compiled = losses(run)
    for (*_, loss, _), (*_, expected, _) in zip(compiled, losses(whole), strict=True):
        assert loss == pytest.approx(expected, rel=1e-3), "eight steps multiply differences by rounding"
    shutil.rmtree(newest(run))
    pretrain(workplace / "config.yaml", [f"out={run}"])
    assert losses(run)[:6] == compiled[:6]
    assert losses(run)[-1][2] == pytest.approx(compiled[-1][2], rel=1e-3)


def test_a_folder_of_something_else_is_not_written_to(workplace, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        pretrain(workplace / "config.yaml", [f"out={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
