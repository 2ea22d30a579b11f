"""A log for each process of a run that was started by `chiasma launch`, where that asked for it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

LOGS = "CHIASMA_LOGS"
"""Environment variable that names the folder."""


def write_if_asked() -> None:
    """Write to a log of its own in a worker, known by its rank, of a run that names a folder."""
    if os.environ.get(LOGS) and "RANK" in os.environ:
        write_to_own_log(Path(os.environ[LOGS]), int(os.environ["RANK"]))


def path_of(folder: Path, rank: int) -> Path:
    """The log of a rank."""
    return folder / f"rank-{rank}.log"


def write_to_own_log(folder: Path, rank: int) -> None:
    """Let this process and all its libraries write to the log of its rank, after what an earlier start wrote there."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path_of(folder, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    print(
        f"rank {rank} of {os.environ.get('WORLD_SIZE', '?')} on {socket.gethostname()}, process {os.getpid()}",
        flush=True,
    )
