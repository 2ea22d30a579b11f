"""Weights & Biases, where a config asks for it: what is sent, and what is not."""

from __future__ import annotations

from typing import Any, Literal

from foundation.config import Config


class Wandb(Config):
    """Weights & Biases; without this key nothing is sent anywhere."""

    project: str = "chiasma"
    mode: Literal["online", "offline"] = "offline"


def start(config: Any) -> Any:
    """Start to track a run: its config without folders and secrets, and its numbers; nothing of the machine.

    Args:
        config: A `PretrainConfig`.

    Returns:
        A started Weights & Biases run, or None where the config does not ask for one.
    """
    if config.wandb is None:
        return None
    import wandb

    shareable = {key: value for key, value in config.shareable().items() if key not in ("cohort", "out")}
    return wandb.init(
        project=config.wandb.project,
        mode=config.wandb.mode,
        dir=config.out,
        config=shareable,
        name=config.out.name,
        # What is left on are numbers: no host, user, path, command line, package list, code or output.
        settings=wandb.Settings(
            host="",
            console="off",
            disable_code=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_save_requirements=False,
        ),
    )
