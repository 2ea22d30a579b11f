"""torchrun that passes signals on to its workers, waits until they have saved, and ends with their exit code.

``python -m launch.torchrun ARGUMENTS`` takes what torchrun takes, and differs in three ways. SIGUSR1, by which a batch
system says that time is nearly up, would end torchrun and reach no worker: here it reaches each one. SIGTERM would give
workers 30 seconds: here they have as long as whoever sent it gives. And torchrun ends with 1 whatever its workers end
with: here a run that asks to be started again, or whose input is wrong, is known by its code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from launch.exit_codes import START_AGAIN
from launch.rank_log import LOGS, path_of

SECONDS = 0.5
"""Between two looks for workers that have not been told yet, and before the first: some systems tell all processes."""

LINGER = 10.0
"""Seconds by which a node that asks to be started again ends after its workers. The workers of other nodes end at the
same step, and a scheduler that sees one node end would end theirs in another way."""

LINES = 20
"""Of the log of the worker that failed first."""


def main(arguments: list[str]) -> int:
    """Run torchrun; returns the exit code."""
    # Of a lost connection, one line and not the frames of torch; asked before torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch.distributed.run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    forwarding = Forwarding()
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forwarding)
    asked = torchrun.parse_args(["--signals-to-handle=SIGHUP,SIGQUIT", *_host(arguments), *arguments])
    try:
        torchrun.run(asked)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except RendezvousError as error:
        print(f"on {socket.gethostname()}: the node where all nodes meet was lost: {error}", file=sys.stderr)
        return 1
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if START_AGAIN in codes or -signal.SIGUSR1 in codes:
            print("saved; to be started again", file=sys.stderr)
            time.sleep(0 if asked.nnodes in ("1", "1:1") else LINGER)
            return START_AGAIN
        rank, first = error.get_first_failure()
        print(_told(rank, first.exitcode), file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


def _host(arguments: list[str]) -> list[str]:
    """That nodes meet on the first one, where a scheduler numbers them; torchrun would guess it from names."""
    if "--standalone" in arguments:
        return []
    numbers = [os.environ[name] for name in ("SLURM_NODEID", "JOB_COMPLETION_INDEX") if name in os.environ]
    first = [f"is_host={numbers[0] == '0'}"] if numbers else []
    return [f"--rdzv-conf={','.join(['read_timeout=600', 'timeout=1800', *first])}"]


class Forwarding:
    """The handler of signals: the first is told to every worker, as soon as it listens.

    Later ones change nothing, except that Ctrl-C pressed again ends all at once.
    """

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Begin to tell them."""
        if not self.begun:
            self.begun = True
            threading.Thread(target=_tell, args=(number,), daemon=True).start()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


def _tell(number: int) -> None:
    import psutil

    told: set[int] = set()
    while True:
        time.sleep(SECONDS)
        for worker in psutil.Process().children():
            if worker.pid not in told and (number != signal.SIGUSR1 or _listens(worker.pid, number)):
                told.add(worker.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.send_signal(number)


def _listens(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, which would otherwise end it; as far as the system says so."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return not Path("/proc/self").exists()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (number - 1) & 1)


def _told(rank: int, code: int) -> str:
    """What is said of the worker that failed first."""
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = f"rank {rank} failed on {socket.gethostname()}: {ended}"
    if LOGS not in os.environ:
        return said
    path = path_of(Path(os.environ[LOGS]), rank)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
    except OSError:
        return said
    return "\n".join([f"{said}; the end of {path}:", *(f"  {line}" for line in lines)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
