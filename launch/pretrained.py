"""A pretraining config pretrained, or gone on with, on request of `finetune`, which may not import `pretrain`."""

from __future__ import annotations

from pathlib import Path


def pretrain_model(config: Path, overrides: list[str]) -> Path:
    """Pretrain, or go on with it; the model folder.

    Args:
        config: A pretraining YAML; where it names several `cohorts`, that of fine-tuning has to be one of them.
        overrides: ``key=value`` changes to it.

    Raises:
        ConfigError: The cohort of fine-tuning is not among several.
    """
    from pretrain.run import pretrain

    _, folder = pretrain(config, _among_several(config, overrides))
    return folder / "model"


def _among_several(config: Path, overrides: list[str]) -> list[str]:
    """The changes, without that of the cohort where the YAML names several."""
    from foundation.config import load_config
    from foundation.errors import ConfigError
    from pretrain.config import PretrainConfig

    given = [change.removeprefix("cohort=") for change in overrides if change.startswith("cohort=")]
    others = [change for change in overrides if not change.startswith("cohort=")]
    try:
        parts = load_config(PretrainConfig, config, [*others, "cohort=null"]).cohorts
    except ConfigError:
        return overrides  # It names none, or what is wrong with it is found when it is used.
    known = [part.path.resolve() for part in parts or ()]
    for path in given:
        if Path(path).resolve() not in known:
            raise ConfigError(
                f"the cohort of fine-tuning, '{path}', is not among its `cohorts`",
                where=str(config),
                fix="name it there, so that its test patients can be held out",
            )
    return others
