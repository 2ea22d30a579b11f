"""A real SLURM of two one-core nodes on this machine, on loopback, from Debian's packages; stopped with the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo", "squeue")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=30
KillWait=10
JobRequeue=1
MpiDefault=none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs.

    Attributes:
        folder: Of its files.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's own commands need, and a run on one core."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def call(self, *words: str) -> str:
        """Run one of SLURM's commands; its output."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        text = self.call("scontrol", "show", "job", "-o", number)
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def wait(self, number: str, reached: Callable[[dict[str, str]], bool], seconds: float) -> dict[str, str]:
        """Wait until a job has reached something.

        Raises:
            AssertionError: It did not, in so many seconds.
        """
        end = time.monotonic() + seconds
        while not reached(job := self.job(number)):
            assert time.monotonic() < end, job
            time.sleep(0.3)
        return job

    def ended(self, number: str, seconds: float = 240) -> dict[str, str]:
        """Wait for the end of a job, whichever way it ends."""
        return self.wait(number, lambda job: job["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), seconds)

    def start_now(self, number: str) -> None:
        """Start a job that was queued again, which SLURM lets wait for two minutes."""
        self.wait(number, lambda job: job["JobState"] == "PENDING", 60)
        time.sleep(2)  # A node refuses what starts in the second in which it ended the same job.
        self.call("scontrol", "update", f"JobId={number}", "StartTime=now")

    def start_daemons(self) -> None:
        """Start what is not running, and wait for both nodes to be idle."""
        for program, name in (("slurmctld", "slurmctld"), ("slurmd", "slurmd-node1"), ("slurmd", "slurmd-node2")):
            if not _alive(self.folder / f"{name}.pid"):
                node = ["-N", name.removeprefix("slurmd-")] if program == "slurmd" else []
                self.call(program, "-f", str(self.folder / "slurm.conf"), *node)
        for _ in range(100):
            with contextlib.suppress(AssertionError):
                if self.call("sinfo", "-h", "-t", "idle,alloc,mix", "-o", "%D").split() == ["2"]:
                    return
            time.sleep(0.3)
        raise AssertionError(self.call("sinfo", "-N", "-l"))

    def kill_node(self, name: str) -> None:
        """Kill the daemon of a node."""
        number = _alive(self.folder / f"slurmd-{name}.pid")
        assert number is not None
        os.kill(number, signal.SIGKILL)

    def stop(self) -> None:
        """End every job and daemon."""
        with contextlib.suppress(AssertionError):
            self.call("scancel", "--user", getpass.getuser())
            end = time.monotonic() + 60
            while self.call("squeue", "-h").strip() and time.monotonic() < end:
                time.sleep(0.3)
        for name in ("slurmd-node1", "slurmd-node2", "slurmctld", "munged"):
            path = self.folder / f"{name}.pid"
            if (number := _alive(path)) is not None:
                os.kill(number, signal.SIGTERM)


def _alive(path: Path) -> int | None:
    """The process that a file names, if it runs."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(path.read_text()))
        return process.pid if process.status() != psutil.STATUS_ZOMBIE else None
    return None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """The cluster."""
    if "CHIASMA_TEST_SLURM" not in os.environ:
        pytest.skip("takes a quarter of an hour and a SLURM of its own: make test-slurm installs and starts it")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.fail(f"{missing[0]} is not installed: make test-slurm installs it")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    subprocess.run(["munged", "--force", *(f"--{o}={folder / f}" for o, f in files.items())], check=True, timeout=60)
    text = CONFIG.format(
        host=socket.gethostname().split(".")[0], ports=_free_ports(3), folder=folder, user=getpass.getuser()
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    cluster = Slurm(folder)
    try:
        cluster.start_daemons()
        yield cluster
    finally:
        cluster.stop()
