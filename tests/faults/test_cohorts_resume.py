"""A run on several cohorts that is killed and started again ends with the same bits, and draws the same records."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.run import pretrain

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
cohorts: [{path: COHORTS/pairs}, {path: COHORTS/omics, weight: 0.5}]
pairs: 0.4
out: run
seed: 2
held_out: {fraction: 0.3}
towers:
  mri: {tower: vit2d, arguments: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}, max_slices: 2, pool_heads: 2}
  omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}
width: 16
fusion: {fusion: gated_mean}
objectives:
  contrast: {loss: {objective: infonce}}
  masked: {loss: {objective: masked_omics, width: 8}}
dropout: {default: 0.3, channels: 0.3}
augmentation: {}
epochs: 4
batch_size: 5
accumulate: 2
ema: 0.9
checkpoint_every: 3
permutations: 100
"""


@pytest.fixture(scope="module")
def workplace(divided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "config.yaml").write_text(CONFIG.replace("COHORTS", str(divided)))
    return folder


def logged(run: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["samples_seen"], row["loss"], row["contrast/mri~omics/rows"]) for row in rows]


def test_killed_and_started_again_it_ends_with_the_same_bits(workplace):
    pretrain(workplace / "config.yaml", [f"out={workplace / 'whole'}"])
    run = workplace / "killed"
    command = [sys.executable, "-m", "launch.cli", "pretrain", str(workplace / "config.yaml"), f"out={run}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((run / "checkpoints").glob("step-*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -9 and not (run / "model").exists(), "it was to be ended in the middle"
    pretrain(workplace / "config.yaml", [f"out={run}"])
    assert logged(run) == logged(workplace / "whole")
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (run, workplace / "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    drawn = [json.loads((path / "metrics.json").read_text())["cohorts"] for path in (run, workplace / "whole")]
    assert drawn[0] == drawn[1]
    assert sum(entry["share_of_pairs"] for entry in drawn[0]) == pytest.approx(0.4, abs=0.01)
