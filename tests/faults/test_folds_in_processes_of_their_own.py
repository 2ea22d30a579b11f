"""Folds of a fine-tuning run in processes of their own, joined after: the result of one process; no two at one fold."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.run import finetune, finetune_folds, names_of_folds
from foundation.errors import CheckpointError, ConfigError, DataError

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
out: run
seed: 3
pretrain: none
network:
  preprocessing: {modalities: [rna]}
  towers:
    omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2, dropout: 0.1}
  fusion: {fusion: gated_mean}
  width: 16
tasks: [{task: subtype, endpoint: subtype}]
splits: {folds: 2, inner_folds: 2}
adapt: {mode: scratch}
fit: {epochs: 1, batch_size: 16}
processes: 1
final: false
"""


@pytest.fixture(scope="module")
def config(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folds") / "config.yaml"
    path.write_text(f"cohort: {simulated / 'cohort'}{CONFIG}")
    return path


def start(config: Path, run: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.cli", "finetune", str(config), f"out={run}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def contents(run: Path) -> tuple[str, bytes]:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("seconds")
    return json.dumps(metrics), (run / "predictions.parquet").read_bytes()


def states(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (run / "folds").rglob("*") if path.is_file()}


@pytest.mark.timeout(900)
def test_folds_done_at_once_in_processes_of_their_own_and_joined_give_what_one_process_gives(config, tmp_path):
    one, several = tmp_path / "one", tmp_path / "several"
    finish(start(config, one))
    names = names_of_folds(config, [f"out={several}"])
    assert names == ("0", "1") and not several.exists()
    processes = [start(config, several, "--fold", name) for name in names]
    for name, process in zip(names, processes, strict=True):
        assert f": {name}; once all folds are" in finish(process)
    assert not (several / "metrics.json").exists()
    done = states(several)
    assert {path.relative_to(several).parts[1] for path in done} == set(names)
    finetune(config, [f"out={several}"])
    assert states(several) == done, "joining repeated a fold"
    assert contents(several) == contents(one)
    assert json.loads((several / "metrics.json").read_text())["seconds"] > 0


def test_a_fold_is_done_by_one_process_and_the_whole_by_none_beside_it(config, tmp_path):
    run = tmp_path / "run"
    with start(config, run, "--fold", "1") as process, contextlib.ExitStack() as ending:
        ending.callback(process.kill)
        end = time.monotonic() + 120
        while not list(run.glob("folds/1/.*")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        said = f"folds/1: is being fine-tuned in by process {process.pid} on "
        with pytest.raises(DataError, match=said):
            finetune_folds(config, [f"out={run}"], ["1"])
        with pytest.raises(DataError, match=said):
            finetune(config, [f"out={run}"])
        with pytest.raises(CheckpointError, match=r"belongs to another run: .*seed changed"):
            finetune_folds(config, [f"out={run}", "seed=4"], ["0"])
        assert not (run / "folds" / "0").exists()
        # As a batch system says that time is nearly up.
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate()
        assert process.returncode == 75
        again = "start the same command again and it goes on with what is not yet done"
        assert said.splitlines()[-1] == f"chiasma finetune: told that time is nearly up; {again}"
        assert not list(run.glob("folds/1/.*"))


def test_a_fold_that_is_not_there_is_named(config, tmp_path):
    with pytest.raises(ConfigError, match=r"no fold is called '2'") as caught:
        finetune_folds(config, [f"out={tmp_path / 'run'}"], ["2"])
    assert "known: 0, 1" in str(caught.value)
    assert not (tmp_path / "run").exists()
