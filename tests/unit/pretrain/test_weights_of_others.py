"""A run whose tower begins with weights of others says so, from the terminal to what may be published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import save_file

from finetune.publish.run import publish
from foundation.errors import ConfigError
from pretrain.run import pretrain

CONFIG = {
    "towers": {
        "mri": {
            "tower": "vit2d",
            "model": "test_vit",
            "arguments": {"patch_size": 16, "depth": 1},
            "max_slices": 2,
            "weights": "theirs/model.safetensors",
        },
        "omics": {
            "tower": "omics_transformer",
            "tokenizer": {"tokenizer": "chunk"},
            "width": 8,
            "depth": 1,
            "heads": 2,
        },
    },
    "fusion": {"fusion": "gated_mean"},
    "width": 8,
    "objectives": {"contrast": {"loss": {"objective": "infonce"}}},
    "epochs": 0.2,
    "batch_size": 8,
    "permutations": 100,
    "probes": False,
}


def test_weights_are_told_recorded_and_asked_for_their_licence(simulated: Path, tmp_path: Path, capsys) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file(timm.create_model("test_vit", num_classes=3, depth=1).state_dict(), theirs / "model.safetensors")
    (theirs / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Theirs\n")
    config = {**CONFIG, "cohort": str(simulated / "cohort"), "out": "run"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    metrics, run = pretrain(tmp_path / "config.yaml")
    told = capsys.readouterr().out
    assert "mri tower: " in told and "in the file, not used: head.bias, head.weight" in told
    recorded = metrics["initial_weights"]["mri"]
    assert (recorded["name"], recorded["licence"]) == ("model.safetensors", "cc-by-nc-4.0")
    assert json.loads((run / "model" / "config.json").read_text())["origins"] == metrics["initial_weights"]
    assert "| mri | model.safetensors | cc-by-nc-4.0 |" in (run / "model" / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"the mri tower began with \(model\.safetensors\) is cc-by-nc-4\.0"):
        publish(run, tmp_path / "published", "mit")
    publish(run, tmp_path / "published", "cc-by-nc-4.0")
    card = (tmp_path / "published" / "README.md").read_text()
    assert "| the weights that the mri tower began with | model.safetensors | cc-by-nc-4.0 |" in card
