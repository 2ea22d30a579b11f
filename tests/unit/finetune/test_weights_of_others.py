"""A network whose tower begins with weights of others: adapted, probed, and beside it the same one from scratch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from finetune.base_model import BaseModel, untrained
from finetune.config import FROM_SCRATCH, FROZEN_PROBE, OURS, FinetuneConfig
from finetune.methods.adapt import adapt
from finetune.methods.modes import Frozen, Full, Lora, Scratch
from finetune.run import finetune, make_study
from foundation.cohort.prepare import prepare
from foundation.config import load_config
from foundation.errors import CheckpointError, ConfigError
from foundation.model import model_folder
from foundation.progress import Silent

PATIENTS, BLOCKS = 36, 6
COHORT = {
    "name": "slices",
    "clinical": {"files": "slices.csv", "patient": "slice", "site": "block"},
    "modalities": {
        "mri": {
            "kind": "image",
            "channels": ["t1"],
            "source": {"format": "image_stack", "files": "{patient}.png"},
            "size": [32, 32],
        }
    },
    "endpoints": {"kind": {"kind": "subtype", "column": "kind", "classes": ["a", "b"]}},
}
CONFIG = {
    "cohort": "cohort",
    "out": "run",
    "pretrain": "none",
    "network": {
        "towers": {"mri": {"tower": "vit2d", "model": "test_resnet", "weights": "weights.pt"}},
        "fusion": {"fusion": "gated_mean"},
        "width": 8,
    },
    "tasks": [{"task": "subtype", "endpoint": "kind"}],
    "splits": {"folds": 2, "inner_folds": 2, "by": "site"},
    "reads": ["towers"],
    "adapt": {"mode": "lora", "rank": 2, "train": ["norms"]},
    "fit": {"epochs": 1, "batch_size": 16},
    "processes": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of small images, a network with random weights that is somebody's pretrained one, and a config."""
    folder = tmp_path_factory.mktemp("weights")
    random, rows = np.random.default_rng(0), ["slice,block,kind"]
    for number in range(PATIENTS):
        kind = number % 2
        pixels = random.integers(0, 120 + 120 * kind, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"S{number}.png")
        rows.append(f"S{number},B{number // (PATIENTS // BLOCKS)},{'ab'[kind]}")
    (folder / "slices.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "cohort.yaml").write_text(yaml.safe_dump(COHORT), encoding="utf-8")
    prepare(folder / "cohort.yaml", out=folder / "cohort", root=folder, workers=1, progress=Silent())
    torch.manual_seed(7)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), folder / "weights.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseModel:
    study = make_study(load_config(FinetuneConfig, folder / "config.yaml"))
    assert study.config.network is not None
    return untrained(study, study.config.network, study.folds.folds[0].train)


def kernels(model: nn.Module) -> dict[str, Tensor]:
    """Kernels of the tower under their names in the file, but for the first, whose channels are made to fit."""
    return {
        name.removeprefix("towers.mri.net.").replace(".base_layer", ""): tensor
        for name, tensor in model.state_dict().items()
        if tensor.ndim == 4 and ".net.layer" in name and ".lora_" not in name
    }


@pytest.mark.parametrize("config", [Lora(rank=2), Frozen(), Full(), Scratch()], ids=lambda config: config.mode)
def test_every_mode_but_scratch_begins_with_the_weights(
    base: BaseModel, theirs: dict[str, Tensor], config: Any
) -> None:
    found = kernels(adapt(base.model, config, nn.ModuleDict(), seed=3).model)
    assert len(found) > 8
    for name, kernel in found.items():
        assert torch.equal(kernel, theirs[name]) != isinstance(config, Scratch), name


def test_a_run_from_weights_of_others(
    folder: Path, theirs: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, out = finetune(folder / "config.yaml", [f"out={tmp_path / 'run'}"])
    assert metrics["pretrain"] == {"from": "weights", "tested_though_seen": 0}
    assert {FROM_SCRATCH, FROZEN_PROBE} <= set(metrics["baselines"])
    assert {choice["method"] for choice in metrics["chosen"]} == {OURS, FROM_SCRATCH, FROZEN_PROBE}
    printed = capsys.readouterr().out
    assert "mri tower: " in printed and "tensors loaded" in printed and "LoRA on net.layer1.*.conv1" in printed
    assert "towers begin with weights of others" in (out / "report.html").read_text(encoding="utf-8")
    kept, _ = model_folder.read(out / "model")
    assert all(torch.equal(kernel, theirs[name]) for name, kernel in kernels(kept).items())
    assert kept.config.origins["mri"]["name"] == "weights.pt"
    assert str(folder) not in json.dumps(metrics)


def test_other_weights_are_another_run(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes((folder / "weights.pt").read_bytes())
    changes = [f"out={tmp_path / 'run'}", f"network.towers.mri.weights={file}", "compare=[]", "final=false"]
    finetune(folder / "config.yaml", [*changes, "fit.epochs=0"])
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), file)
    with pytest.raises(CheckpointError, match="belongs to another run: the weights of tower 'mri' changed"):
        finetune(folder / "config.yaml", [*changes, "fit.epochs=0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["adapt={mode: scratch}"], "would not read the weights of tower 'mri'"),
        (["network.towers.mri.weights=none"], "leaves nothing to adapt(.|\n)*name the `weights`"),
        (["network.towers.mri.weights=missing.pt"], "no such file of weights"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        finetune(folder / "config.yaml", [f"out={tmp_path / 'run'}", *changes])
    assert not (tmp_path / "run").exists()
