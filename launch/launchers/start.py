"""`chiasma launch`: a config and a cluster into what starts the run; shown, written, and started where asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import ChiasmaError, ConfigError
from foundation.urls import is_url
from launch.launchers import kubernetes, local, slurm
from launch.launchers.base import Command, Job, Plan, name_of
from launch.launchers.cluster import Cluster, load_cluster

if TYPE_CHECKING:
    from pretrain.config import CohortPart

LAUNCHERS: dict[str, Callable[[Job], Plan]] = {
    "none": local.plan,
    "slurm": slurm.plan,
    "kubernetes": kubernetes.plan,
}


def launch(
    command: Command,
    config: Path | None,
    overrides: Sequence[str],
    *,
    profile: Path | None = None,
    asked: Mapping[str, Any] = {},
    folder: Path | None = None,
    rendezvous: str = "",
    timeout: float | None = None,
    dry_run: bool = False,
    submit: bool = False,
) -> None:
    """Start a run on many processes, or write what a scheduler wants.

    Args:
        command: Of chiasma.
        config: The YAML; None for the doctor.
        overrides: See `Job`.
        profile: YAML of a cluster.
        asked: Keys of `Cluster` that are said here; see `load_cluster`.
        folder: For what is written; by default ``launched/`` and the name of the job.
        rendezvous: See `Job`.
        timeout: See `Job`.
        dry_run: Show everything and start nothing.
        submit: Hand what was written to the scheduler.

    Raises:
        ConfigError: The run or the cluster cannot be what it says.
        ChiasmaError: The scheduler refused.
    """
    cluster = load_cluster(profile, asked)
    folds = () if config is None else _refuse_what_cannot_run(command, config, overrides, cluster)
    named = folder or Path("launched") / name_of(command, config)
    job = Job(command, config, tuple(overrides), cluster, named, rendezvous, folds, timeout)
    plan = LAUNCHERS[cluster.scheduler](job)
    if submit and plan.waits:
        raise ConfigError(
            "without a scheduler there is nobody to submit it to", where="--submit", fix="add --slurm or --kubernetes"
        )
    if dry_run:
        _show(plan)
    elif plan.waits:
        sys.stdout.flush()
        os.execvp("bash", ["bash", "-ec", "\n".join(plan.start)])
    else:
        _write(plan)
        _show(plan)
        if submit:
            _submit(plan)


def _refuse_what_cannot_run(command: str, config: Path, overrides: Sequence[str], cluster: Cluster) -> tuple[str, ...]:
    """Read the config here, where a mistake costs no time in a queue; returns the folds of fine-tuning.

    On Kubernetes the paths are those of the image.
    """
    if cluster.scheduler == "kubernetes":
        if not config.is_absolute():
            raise ConfigError(
                "on Kubernetes the config is read in the container, and where that starts is not known here",
                where=str(config),
                fix="write its whole path as the container has it, such as /data/my.yaml with --mount CLAIM:/data",
            )
        return ()
    if command == "pretrain":
        from foundation.config import load_config
        from pretrain.config import PretrainConfig

        _tell_what_is_not_here(load_config(PretrainConfig, config, overrides).parts)
        return ()
    if cluster.scheduler != "slurm":
        from finetune.config import FinetuneConfig
        from foundation.config import load_config

        load_config(FinetuneConfig, config, overrides)
        return ()
    from finetune.run import names_of_folds

    return names_of_folds(config, overrides)


def _tell_what_is_not_here(parts: Sequence[CohortPart]) -> None:
    """Say which cohorts are not on this machine; they may be where the run will be."""
    for part in parts:
        if not is_url(part.path) and not Path(part.path, "cohort.json").is_file():
            print(f"note: no prepared cohort is here at {part.path}; it has to be where this runs", file=sys.stderr)


def _write(plan: Plan) -> None:
    for path, text in plan.files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {error.strerror}", where=str(path), fix="name another folder with --folder"
            ) from None


def _show(plan: Plan) -> None:
    for path, text in plan.files.items():
        print(f"# {path}\n{text}")
    print("\n".join(["# to start it:", *plan.start] if plan.files else plan.start))


def _submit(plan: Plan) -> None:
    done = subprocess.run(["bash", "-ec", "\n".join(plan.start)], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 127:
        raise ConfigError(
            f"cannot be submitted here: {done.stderr.strip()}", fix="start the lines above on a login node"
        )
    if done.returncode:
        raise ChiasmaError(
            f"the scheduler refused: {done.stderr.strip()}",
            fix="correct the options or the profile; where it cannot be reached, start the lines above on a login node",
        )
