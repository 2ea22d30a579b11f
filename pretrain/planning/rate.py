"""How long a record takes: as a run measured it, or from its operations and what is assumed of the machine."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from foundation.config import load_config
from foundation.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.planning.hardware import Hardware

ALIKE = (
    "towers",
    "fusion",
    "width",
    "objectives",
    "chunk_size",
    "precision",
    "activation_checkpointing",
    "compile",
)
"""Keys that decide how long a record takes; a run that differs in one has measured something else."""


@dataclass(frozen=True)
class Rate:
    """How fast one GPU, or one process, is.

    Attributes:
        seconds: Per record; where a run was measured, with whatever it waited for data and other processes.
        source: Where that is known from.
    """

    seconds: float
    source: str


def measured(run: Path, config: PretrainConfig) -> Rate:
    """Read the speed of a run of the same model.

    Args:
        run: Its folder.
        config: Of the plan.

    Raises:
        ConfigError: It is no run folder, its model is another one, or it has logged no step beside its first.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise ConfigError(
            "is not the folder of a run (it has no metrics.jsonl)", where=str(run), fix="name a run folder"
        )
    of_run = load_config(PretrainConfig, run / "config.yaml")
    for key in ALIKE:
        if getattr(of_run, key) != getattr(config, key):
            raise ConfigError(
                f"`{key}` of this run is another one, so its speed says nothing of the plan",
                where=str(run),
                fix="name a run of the same model, or leave out --measured",
            )
    rows = [row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if row["split"] == "train"]
    told = [row for row in rows[1:] if "processes" in row]
    if not told:
        raise ConfigError(
            "has logged no step from which its speed is known", where=str(path), fix="let it run for some steps"
        )
    seconds = statistics.median(row["processes"] / row["samples_per_second"] for row in told)
    last = told[-1]
    processes = f"{last['processes']} process{'es' * (last['processes'] > 1)}"
    return Rate(seconds, f"measured in {run.name}, {processes} on {last['device']}")


def assumed(operations: float, config: PretrainConfig, hardware: Hardware) -> Rate:
    """What so many operations per record would take."""
    speed = hardware.operations_per_second(config.precision)
    return Rate(operations / speed, f"assumed: {speed / 1e12:,.0f} TFLOP/s, not yet measured on a GPU")
