"""A fine-tuning run that is killed and started again repeats no fold, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from finetune.run import finetune
from foundation.errors import CheckpointError, DataError

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
out: run
seed: 3
pretrain: none
network:
  preprocessing: {modalities: [rna, cnv]}
  towers:
    omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2, dropout: 0.1}
  fusion: {fusion: gated_mean}
  width: 16
tasks:
  - {task: subtype, endpoint: subtype}
  - {task: survival, endpoint: os}
splits: {folds: 3, inner_folds: 2}
reads: [values]
adapt: {mode: scratch}
fit: {epochs: 2, batch_size: 16}
processes: 1
"""

PRETRAIN = """
cohort: elsewhere
out: elsewhere
preprocessing: {modalities: [rna, cnv]}
towers:
  omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}
width: 16
fusion: {fusion: gated_mean}
objectives:
  masked: {loss: {objective: masked_omics, width: 8}}
epochs: 2000
batch_size: 12
"""


@pytest.fixture(scope="module")
def workplace(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "config.yaml").write_text(f"cohort: {simulated / 'cohort'}{CONFIG}")
    return folder


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    """A run that nothing happened to, in a process of its own with one thread."""
    process = start(workplace, workplace / "whole")
    _, message = process.communicate()
    assert process.returncode == 0, message
    return workplace / "whole"


def _settle() -> None:
    """Two cores at most, so that each of two processes has one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def start(workplace: Path, run: Path, *changes: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.cli", "finetune", str(workplace / "config.yaml"), f"out={run}", *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_settle,
    )


def finish(workplace: Path, run: Path, *changes: str) -> None:
    process = start(workplace, run, *changes)
    _, message = process.communicate()
    assert process.returncode == 0, message


def wait_for(process: subprocess.Popen, what: str, folder: Path) -> list[Path]:
    """Files of a pattern in a folder, once there are any."""
    while process.poll() is None:
        if found := list(folder.glob(what)):
            return found
        time.sleep(0.005)
    raise AssertionError("it ended before it was to be ended")


def contents(run: Path) -> tuple[str, bytes]:
    """What must not depend on what happened on the way."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("seconds")
    return json.dumps(metrics), (run / "predictions.parquet").read_bytes()


def states(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGKILL, -9, ""), pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow)],
)
def test_ended_in_a_later_fold_it_repeats_none_and_ends_with_the_same_bytes(workplace, whole, number, code, said):
    run = workplace / number.name
    process = start(workplace, run)
    wait_for(process, "1/[!.]*/done", run / "folds")
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == code
    assert not (run / "metrics.json").exists(), "it was to be ended in the middle"
    if said:
        last = f"chiasma finetune: {said}; start the same command again and it goes on with what is not yet done"
        assert message.splitlines()[-1] == last and "Traceback" not in message
    done = {path.parent: states(path.parent) for path in (run / "folds").glob("[!.]*/[!.]*/done")}
    assert len(done) >= 3
    finish(workplace, run)
    assert all(states(method).items() >= before.items() for method, before in done.items())
    assert contents(run) == contents(whole)


def test_finished_and_started_again_it_only_writes_the_result_anew(workplace, whole):
    before, folds = contents(whole), states(whole / "folds")
    finish(workplace, whole)
    assert contents(whole) == before and states(whole / "folds") == folds


@pytest.mark.slow
def test_two_processes_give_what_one_gives(workplace, whole, tmp_path):
    finish(workplace, tmp_path / "run", "processes=2")
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)]
)
def test_processes_end_with_the_one_that_started_them(workplace, tmp_path, number, code):
    process = start(workplace, tmp_path / "run", "processes=2")
    wait_for(process, "*/.*.partial", tmp_path / "run" / "folds")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == code and "Traceback" not in message
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_told_to_end_while_two_folds_pretrain_no_other_is_begun(workplace, tmp_path):
    (tmp_path / "pretrain.yaml").write_text(PRETRAIN)
    run = tmp_path / "run"
    process = start(
        workplace, run, "processes=2", "pretrain=per_fold", "network=null", f"pretraining={tmp_path / 'pretrain.yaml'}"
    )
    wait_for(process, "0/pretrained/metrics.jsonl", run / "folds")
    wait_for(process, "1/pretrained/metrics.jsonl", run / "folds")
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in message
    assert sorted(path.name for path in (run / "folds").iterdir()) == ["0", "1"]
    # The first may be done before the second has begun.
    done = (run / "folds" / "0" / "pretrained" / "model").is_dir()
    assert done or list(run.glob("folds/0/pretrained/checkpoints/step-*")), "what was learned is saved"


@pytest.mark.parametrize(
    "change", ["fit.epochs=1", "fit.optimiser.learning_rate=0.5", "splits.inner_folds=3", "seed=4"]
)
def test_a_changed_config_does_not_go_on_and_names_the_key(workplace, whole, change):
    written = (whole / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match="belongs to another run: ") as caught:
        finetune(workplace / "config.yaml", [f"out={whole}", change])
    assert caught.value.exit_code == 2 and change.split("=")[0] in str(caught.value)
    assert (whole / "config.yaml").read_text() == written


def test_two_processes_do_not_work_in_one_folder(workplace, tmp_path):
    process = start(workplace, tmp_path / "run")
    wait_for(process, "folds", tmp_path / "run")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(DataError, match=f"is being fine-tuned in by process {process.pid}"):
        finetune(workplace / "config.yaml", [f"out={tmp_path / 'run'}"])
    process.kill()
    process.communicate()
