"""Settings of the modes of adaptation survive YAML, and those of another mode are refused."""

from __future__ import annotations

import pytest

from finetune.methods.modes import AdaptConfig, Frozen, Full, Lora, Scratch, TowerLora
from foundation.config import Config, load_config
from foundation.errors import ConfigError


class Holder(Config):
    adapt: AdaptConfig = Lora()


@pytest.mark.parametrize(
    "config",
    [
        Lora(rank=2, dropout=0.2),
        Lora(rank=4, rslora=True, train=["projections", "fusion", "norms"]),
        Lora(towers={"mri": TowerLora(targets=["qkv"], rank=3), "ct": None, "omics": TowerLora(dora=True)}),
        Frozen(),
        Frozen(train=["projections"]),
        Full(),
        Scratch(),
    ],
)
def test_settings_survive_yaml(config, tmp_path):
    (tmp_path / "finetune.yaml").write_text(Holder(adapt=config).to_yaml())
    assert load_config(Holder, tmp_path / "finetune.yaml").adapt.model_dump() == config.model_dump()


@pytest.mark.parametrize(
    "text", ["adapt: {mode: frozen, rank: 8}", "adapt: {mode: loar}", "adapt: {mode: lora, rank: 0}"]
)
def test_settings_of_another_mode_are_refused(tmp_path, text):
    (tmp_path / "finetune.yaml").write_text(text)
    with pytest.raises(ConfigError, match="adapt"):
        load_config(Holder, tmp_path / "finetune.yaml")
