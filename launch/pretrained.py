"""A pretraining config pretrained, or gone on with, on request of `finetune`, which may not import `pretrain`."""

from __future__ import annotations

from pathlib import Path


def pretrain_model(config: Path, overrides: list[str]) -> Path:
    """Pretrain, or go on with it; the model folder.

    Args:
        config: A pretraining YAML.
        overrides: ``key=value`` changes to it.
    """
    from pretrain.run import pretrain

    _, folder = pretrain(config, overrides)
    return folder / "model"
