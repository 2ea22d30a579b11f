"""`chiasma pretrain` in several processes: the run of one, whatever the strategy, and a run that goes on as another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.training.parallel.strategies import STRATEGIES
from pretrain.run import pretrain

pytestmark = pytest.mark.timeout(900)
SLOW = dict.fromkeys(["fsdp", "zero2", "zero3"], pytest.mark.slow)
REPOSITORY = Path(__file__).parents[2]
CONFIG = """
cohort: COHORT
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
epochs: 3
batch_size: 13
activation_checkpointing: true
checkpoint_every: 3
permutations: 100
"""


@pytest.fixture(scope="module")
def workplace(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "config.yaml").write_text(CONFIG.replace("COHORT", str(simulated / "cohort")))
    return folder


@pytest.fixture(scope="module")
def alone(workplace: Path) -> Path:
    pretrain(workplace / "config.yaml", [f"out={workplace / 'alone'}"])
    return workplace / "alone"


def launch(workplace: Path, run: Path, processes: int, *changes: str) -> subprocess.Popen:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = ["-m", "launch.cli", "pretrain", str(workplace / "config.yaml"), f"out={run}", *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*torchrun, *command], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    return output


def rows(run: Path, split: str = "train") -> list[dict]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_alike(run: Path, other: Path) -> None:
    """Up to the rounding of sums in another order, which eight steps of training multiply."""
    for ours, theirs in zip(rows(run), rows(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["samples_seen"] == theirs["samples_seen"]
    found, expected = weights(run), weights(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (run, other))
    assert ours["retrieval"].keys() == theirs["retrieval"].keys()
    for direction, measured in theirs["retrieval"].items():
        assert ours["retrieval"][direction]["n"] == measured["n"]
        assert abs(ours["retrieval"][direction]["median_rank"] - measured["median_rank"]) <= 1


@pytest.mark.parametrize("strategy", [pytest.param(name, marks=SLOW.get(name, [])) for name in STRATEGIES])
def test_two_processes_run_as_one(workplace, alone, strategy):
    run = workplace / strategy
    process = launch(workplace, run, 2, f"strategy={strategy}")
    assert finish(process) and process.returncode == 0
    assert (run / "report.html").is_file()
    assert_alike(run, alone)
