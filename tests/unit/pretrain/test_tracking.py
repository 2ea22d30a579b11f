"""What Weights & Biases is told, with the real package, offline: numbers and the config, and nothing of the machine."""

from __future__ import annotations

import getpass
import socket
import sys
from pathlib import Path

import pytest

import pretrain.tracking
from foundation.config import load_config
from pretrain.config import PretrainConfig
from pretrain.monitor import Monitor

CONFIG = """
cohort: /someone/secret-cohort
out: run
towers:
  mri: {tower: vit2d, weights: /someone/weights.safetensors}
  omics: {tower: omics_transformer, tokenizer: {tokenizer: pathway, gene_sets: "${env:GENE_SETS}"}}
fusion: {fusion: gated_mean}
objectives: {contrast: {loss: {objective: infonce}}}
"""


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> PretrainConfig:
    monkeypatch.setenv("GENE_SETS", "/someone/sentinel.gmt")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "run").mkdir()
    return load_config(PretrainConfig, folder / "config.yaml", overrides)


def test_without_the_key_the_package_is_not_even_imported(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert pretrain.tracking.start(load(tmp_path, monkeypatch)) is None
    assert "wandb" not in sys.modules and list((tmp_path / "run").iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # of the package, about its own future
def test_offline_it_keeps_numbers_and_no_name(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = load(tmp_path, monkeypatch, "wandb={project: sentinel-project, mode: offline}", "batch_size=61")
    run = pretrain.tracking.start(config)
    monitor = Monitor(config.out / "metrics.jsonl", step=0, steps=2, wandb=run)
    monitor.log({"step": 1, "split": "train", "loss": 0.5})
    monitor.log({"step": 1, "split": "non-finite", "rows": [41, 42]})
    monitor.log({"step": 2, "split": "held_out", "retrieval": {"mri->omics": {"n": 3}}})
    monitor.close()
    import wandb

    wandb.teardown()
    [record] = (config.out / "wandb").glob("offline-run-*/*.wandb")
    told = record.read_bytes()
    for known in (b"sentinel-project", b"loss", b"gated_mean", b"weights.safetensors", b"${env:GENE_SETS}"):
        assert known in told
    for name in (str(tmp_path), "/home", "someone", "secret-cohort", "sentinel.gmt"):
        assert name.encode() not in told, name
    # A host of few letters also occurs by chance, in the random name of a run.
    assert len(socket.gethostname()) < 5 or socket.gethostname().encode() not in told
    assert getpass.getuser() == "root" or getpass.getuser().encode() not in told
    files = {path.name for path in (config.out / "wandb").rglob("*") if path.is_file()}
    assert not files & {"requirements.txt", "wandb-metadata.json", "output.log"}
