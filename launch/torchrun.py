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

TOGETHER = 0.05
"""Seconds within which signals were sent at once."""

NOBODY = 5.0
"""Seconds after SIGTERM or Ctrl-C within which a first worker has to be there: nodes may long wait for each other."""

LINES = 20
"""Of the log of the worker that failed first."""


def main(arguments: list[str]) -> int:
    """Run torchrun; returns the exit code."""
    # Of a lost connection, one line and not the frames of torch; asked before torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch.distributed.run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    Forwarding().listen()
    asked = torchrun.parse_args(["--signals-to-handle=SIGHUP,SIGQUIT", *arguments])
    asked.rdzv_conf = ",".join([*_patience(arguments), *filter(None, [asked.rdzv_conf])])
    try:
        torchrun.run(asked)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except RendezvousError as error:
        print(
            f"on {socket.gethostname()}: {asked.nnodes} nodes did not meet at {asked.rdzv_endpoint}, or lost each "
            f"other: {str(error) or 'not all came'}\n  what to do: check that the same command runs on each, and that "
            "they may open connections to that place",
            file=sys.stderr,
        )
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


def _patience(arguments: list[str]) -> list[str]:
    """How long nodes try to meet; and that they do so on the first one, where a scheduler numbers them.

    Torchrun would guess the first from names.
    """
    if "--standalone" in arguments:
        return []
    numbers = [os.environ[name] for name in ("SLURM_NODEID", "JOB_COMPLETION_INDEX") if name in os.environ]
    return ["read_timeout=600", "timeout=1800", *([f"is_host={numbers[0] == '0'}"] if numbers else [])]


class Forwarding:
    """Tells the first signal to every worker, as soon as it listens.

    Later ones change nothing, except that Ctrl-C pressed again ends all at once. Signals are read by a thread: while
    nodes wait for each other, torch holds the main one where no handler of Python is called.
    """

    def __init__(self) -> None:
        self.begun = False

    def listen(self) -> None:
        """From now on."""
        heard, told = os.pipe()
        os.set_blocking(told, False)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._again)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._read, args=(heard,), daemon=True).start()

    def _again(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.begun:
            raise KeyboardInterrupt
        self.begun = True

    @staticmethod
    def _read(heard: int) -> None:
        first = os.read(heard, 1)
        time.sleep(TOGETHER)
        # Of signals that wait at once the system delivers the last first.
        os.set_blocking(heard, False)
        with contextlib.suppress(BlockingIOError):
            first += os.read(heard, 64)
        _tell(min(first))


def _tell(number: int) -> None:
    import psutil

    told: set[int] = set()
    until = time.monotonic() + NOBODY
    while True:
        time.sleep(SECONDS)
        for worker in psutil.Process().children():
            if worker.pid not in told and (number != signal.SIGUSR1 or _listens(worker.pid, number)):
                told.add(worker.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.send_signal(number)
        if not told and number != signal.SIGUSR1 and time.monotonic() > until:
            print(f"on {socket.gethostname()}: ended before any worker was started", file=sys.stderr, flush=True)
            os._exit(128 + number)


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


def _end(code: int) -> None:
    """End at once: while Python winds up, SIGTERM from a scheduler that saw another node end would be the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main(sys.argv[1:]))
