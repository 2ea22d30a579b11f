"""What a launcher is told to start, and what it answers: files to write, and lines of shell that start it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from launch.launchers.cluster import Cluster

Command: TypeAlias = Literal["pretrain", "finetune", "doctor"]

WORKER = ("-m", "launch.cli")
AGENT = ("-m", "launch.torchrun")


@dataclass(frozen=True)
class Job:
    """A run that is to be started, or a measurement of where it would run.

    Attributes:
        command: Of chiasma.
        config: The YAML; the doctor has none.
        overrides: ``key=value`` changes to it; of the doctor, its options.
        cluster: Where, on how many.
        folder: For the files of the launch: what is submitted, and logs.
        rendezvous: ``HOST:PORT`` where nodes without a scheduler meet; empty for one node.
        folds: Of fine-tuning, by name, where each is a job of its own.
        timeout: Seconds that nodes wait for each other, of the doctor; None for as long as torchrun does.
    """

    command: Command
    config: Path | None
    overrides: tuple[str, ...]
    cluster: Cluster
    folder: Path
    rendezvous: str = ""
    folds: tuple[str, ...] = ()
    timeout: float | None = None

    @property
    def name(self) -> str:
        """For lists of jobs."""
        return name_of(self.command, self.config)

    @property
    def words(self) -> list[str]:
        """What follows `chiasma`."""
        return [self.command, "--distributed" if self.config is None else str(self.config), *self.overrides]

    @property
    def goes_on(self) -> bool:
        """Whether it goes on where it stopped when it is started again."""
        return self.command != "doctor"

    @property
    def python(self) -> str:
        """The interpreter that runs it."""
        return self.cluster.python or ("python" if self.cluster.container else sys.executable)

    def alone(self) -> list[str]:
        """The words of one process without others."""
        return [self.python, *WORKER, *self.words]

    def together(self) -> list[str]:
        """The words that follow torchrun's own: what each of its workers runs."""
        return [*WORKER, *self.words]

    def agent(self, *, rendezvous: Iterable[str]) -> list[str]:
        """The words of torchrun on each node, without the workers'.

        Args:
            rendezvous: How nodes find each other.
        """
        counts = (f"--nnodes={self.cluster.nodes}", f"--nproc-per-node={self.cluster.per_node}")
        waits = [f"--rdzv-conf=join_timeout={self.timeout:g}"] if self.timeout else []
        return [self.python, *AGENT, *counts, *waits, *rendezvous]


def name_of(command: Command, config: Path | None) -> str:
    """Of a job, by what it runs."""
    return command if config is None else f"{command}-{config.stem}"


@dataclass(frozen=True)
class Plan:
    """What a launcher would do.

    Attributes:
        files: To write, with their text.
        start: Lines of shell that start the job.
        waits: Whether the lines last as long as the job.
    """

    files: dict[Path, str] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    waits: bool = False


def threads(job: Job, cores: int) -> int:
    """Threads for each process of a node."""
    return max(1, cores // job.cluster.per_node)


def quoted(words: Iterable[str]) -> str:
    """Words as a line of shell."""
    return shlex.join(words)
