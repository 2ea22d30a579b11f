"""The profile of a cluster: what its users always have to say of it, and what a single start says instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from foundation.config import Config, load_config
from foundation.errors import ConfigError
from foundation.wording import listed

Scheduler = Literal["none", "slurm", "kubernetes"]
Mount = Annotated[str, Field(pattern=r"^[^:]+:/[^:]*$")]

OF_SLURM = frozenset({"time", "partition", "account", "gres", "module"})

NOT_READ: dict[Scheduler, frozenset[str]] = {
    "none": OF_SLURM | {"mem", "cpus_per_task", "setup"},
    "slurm": frozenset(),
    "kubernetes": OF_SLURM,
}
"""Keys that change nothing: a profile may serve several schedulers, but whoever types one expects something of it."""

WHERE: dict[Scheduler, str] = {"none": "on this machine", "slurm": "under SLURM", "kubernetes": "on Kubernetes"}

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Container(Config):
    """An image that holds chiasma, and what of the cluster's disks is seen inside it."""

    image: str = Field(min_length=1)
    runtime: Literal["pyxis", "apptainer"] = Field(default="pyxis", description="Of SLURM: who opens the image.")
    mounts: list[Mount] = Field(
        default=[], description="FOLDER:INSIDE; on Kubernetes CLAIM:INSIDE, of a persistent volume claim."
    )


class Kubernetes(Config):
    """What only Kubernetes asks for."""

    namespace: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    shared_memory: str = Field(default="8Gi", description="Of /dev/shm, through which workers hand batches over.")
    secrets: list[str] = Field(default=[], description="Names of secrets whose keys become environment variables.")
    pull_secrets: list[str] = []
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []


class Cluster(Config):
    """How a cluster is asked for nodes, and what makes a process run on them."""

    scheduler: Scheduler = "none"
    nodes: int = Field(default=1, ge=1)
    gpus: int | None = Field(default=None, ge=0, description="Per node, one process for each; 0 for a run on CPUs.")
    processes: int | None = Field(default=None, ge=1, description="Per node, where there are no GPUs.")
    time: str | None = Field(default=None, pattern=r"^(\d+-)?\d+(:\d+){0,2}$", description="As SLURM writes it.")
    partition: str | None = None
    account: str | None = None
    mem: str | None = Field(default=None, description="Per node; 0 is all of it under SLURM.")
    cpus_per_task: int | None = Field(default=None, ge=1, description="Per node, shared by its processes.")
    gres: str | None = Field(
        default=None, description="GPUs as a generic resource of SLURM, without their number, such as gpu:a100."
    )
    sbatch: list[Annotated[str, Field(pattern=r"^--")]] = Field(default=[], description="Further options of sbatch.")
    module: list[str] = Field(default=[], description="Environment modules to load.")
    setup: list[str] = Field(default=[], description="Lines of shell before the start, such as one that activates.")
    environment: dict[VariableName, str] = {}
    container: Container | None = None
    python: str | None = Field(default=None, description="By default this one; in a container `python`.")
    logs: Path | None = Field(default=None, description="Folder with a log per process.")
    warn_before_end: int = Field(default=300, ge=30, description="Seconds before the time is up: save, and requeue.")
    requeues: int = Field(default=100, ge=0, description="How often a job that asks for it is queued again, at most.")
    kubernetes: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _has_one_count(self) -> Cluster:
        if self.gpus and self.processes:
            raise ValueError("`processes` is for nodes without GPUs: each GPU has one process; leave one of them out")
        if self.gres and not self.gpus:
            raise ValueError("`gres` says which GPUs and `gpus` how many: give both")
        return self

    @property
    def per_node(self) -> int:
        """Processes on each node."""
        return self.gpus or self.processes or 1

    def references(self) -> dict[str, str]:
        """The environment with ``${env:NAME}`` in place of what came from there, so that no secret is written down."""
        return self._environment.hide(self.environment)


def load_cluster(profile: Path | None, asked: Mapping[str, Any]) -> Cluster:
    """A profile with what a single start says instead.

    Args:
        profile: A YAML, or None.
        asked: Keys of `Cluster`, dotted, that were given; None for what was not.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or the scheduler has no use for what is asked.
    """
    given = {key: value for key, value in asked.items() if value not in (None, ())}
    # The profile's own scheduler is read too, where another is asked for.
    scheduler = given.pop("scheduler", None)
    if profile is None:
        cluster = _of_options(given)
    else:
        cluster = load_config(Cluster, profile, [f"{key}={json.dumps(value)}" for key, value in given.items()])
    if scheduler is not None:
        cluster = cluster.model_copy(update={"scheduler": scheduler})
    _refuse_what_nobody_reads(cluster.scheduler, given)
    return cluster


def _refuse_what_nobody_reads(scheduler: Scheduler, given: Iterable[str]) -> None:
    unread = [key for key in given if key in NOT_READ[scheduler]]
    if unread:
        options = listed([f"--{key.replace('_', '-')}" for key in unread])
        raise ConfigError(
            f"{options} would change nothing {WHERE[scheduler]}",
            where="command line",
            fix="leave it out, or add --slurm",
        )


def _of_options(given: Mapping[str, Any]) -> Cluster:
    """A cluster of which only the command line says something."""
    document: dict[str, Any] = {}
    for key, value in given.items():
        *above, last = key.split(".")
        node = document
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    try:
        return Cluster.model_validate(document)
    except ValidationError as error:
        found = [_in_words(item["loc"], item["msg"]) for item in error.errors(include_url=False)]
        raise ConfigError("; ".join(found), where="command line", fix="correct the option") from None


def _in_words(place: tuple[int | str, ...], message: str) -> str:
    name = "-".join(map(str, place)).replace("_", "-")
    message = re.sub(r"^Value error, ", "", message)
    return f"{name}: {message}" if name else message
