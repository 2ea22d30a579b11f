"""`chiasma launch pretrain` on this machine: two processes, told that time is nearly up, go on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).parents[2]
STEPS = 60
CONFIG = """
out: run
seed: 3
held_out: {fraction: 0.4}
preprocessing: {modalities: [rna]}
towers:
  rna: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}
width: 16
fusion: {fusion: gated_mean}
objectives: {masked: {loss: {objective: masked_omics, width: 8}}}
dropout: {default: 0.3}
batch_size: 12
checkpoint_every: 50
permutations: 100
"""


def start(folder: Path, run: str) -> subprocess.Popen:
    words = ["launch", "pretrain", str(folder / "config.yaml"), f"out={folder / run}", "--logs", str(folder / "logs")]
    return subprocess.Popen(
        [sys.executable, "-m", "launch.cli", *words, "--gpus", "0", "--processes", "2"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    said, _ = process.communicate()
    return process.returncode, said


def rows(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_that_are_told_that_time_is_nearly_up_save_and_go_on_to_the_same_bits(simulated, tmp_path):
    epochs = STEPS * 12 / _training(simulated)
    (tmp_path / "config.yaml").write_text(f"cohort: {simulated / 'cohort'}\nepochs: {epochs}\n{CONFIG}")
    process = start(tmp_path, "told")
    while process.poll() is None and len(rows(tmp_path / "told")) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    code, said = ended(process)
    assert (code, said.splitlines()[-1]) == (75, "saved; to be started again"), said
    stopped_after = rows(tmp_path / "told")[-1]["step"]
    assert 3 <= stopped_after < STEPS and not (tmp_path / "told" / "model").exists()
    for run in ("told", "whole"):
        code, said = ended(start(tmp_path, run))
        assert code == 0, said
    told, whole = (rows(tmp_path / run) for run in ("told", "whole"))
    assert [row["step"] for row in told] == [row["step"] for row in whole] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in told] == [row["loss"] for row in whole]
    ours, theirs = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("told", "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    log = (tmp_path / "logs" / "rank-1.log").read_text()
    assert log.count("rank 1 of 2 on ") == 3 and f"stopped by SIGUSR1 after step {stopped_after}" in log


def _training(simulated: Path) -> int:
    """Records that are not held out of pretraining, of those who have RNA."""
    from foundation.cohort.store import PreparedCohort
    from pretrain.split import HeldOut, split

    return len(split(PreparedCohort(simulated / "cohort"), HeldOut(fraction=0.4), 3)[0])
