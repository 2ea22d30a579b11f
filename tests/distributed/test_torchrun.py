"""`launch.torchrun`: a signal reaches every worker once it listens; the exit code of the workers is that of the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
WORKER = """
import os, signal, sys, time
from pathlib import Path
rank, folder, late = int(os.environ["RANK"]), Path(sys.argv[1]), float(sys.argv[2])
(folder / f"{rank}.here").touch()
time.sleep(late * rank)
told = []
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: told.append(number))
(folder / f"{rank}.listens").touch()
while not told and not (folder / f"{rank}.ends").exists():
    time.sleep(.01)
time.sleep(float(sys.argv[3]))  # it saves
(folder / f"{rank}.told").write_text(" ".join(map(str, told)))
# Who is still saving when another has ended is told to end by torchrun, too.
end = time.monotonic() + 5
while told and not (folder / f"{1 - rank}.told").exists() and time.monotonic() < end:
    time.sleep(.01)
codes = {signal.SIGUSR1: 75, signal.SIGTERM: 143, signal.SIGINT: 130}
sys.exit(codes[told[0]] if told else int((folder / f"{rank}.ends").read_text()))
"""


def start(folder: Path, *, late: float = 0, saving: float = 0.2, **environment: str) -> subprocess.Popen:
    (folder / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "launch.torchrun", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*command, "--monitor-interval=0.05", str(folder / "worker.py"), str(folder), str(late), str(saving)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen, *paths: Path) -> None:
    end = time.monotonic() + 120
    while not all(path.exists() for path in paths):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_it_alone_reaches_every_worker_once_and_its_code_comes_back(tmp_path, number, code):
    process = start(tmp_path)
    wait_for(process, *(tmp_path / f"{rank}.listens" for rank in range(2)))
    workers = psutil.Process(process.pid).children()
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == code
    assert [(tmp_path / f"{rank}.told").read_text() for rank in range(2)] == [str(number.value)] * 2
    assert not any(worker.is_running() for worker in workers)


def test_a_worker_that_does_not_listen_yet_is_told_when_it_does(tmp_path):
    process = start(tmp_path, late=3, saving=6)
    wait_for(process, tmp_path / "0.listens", tmp_path / "1.here")
    assert not (tmp_path / "1.listens").exists()
    process.send_signal(signal.SIGUSR1)
    code, said = ended(process)
    assert code == 75 and said.splitlines()[-1] == "saved; to be started again"
    assert (tmp_path / "1.told").read_text().split()[0] == str(signal.SIGUSR1.value)


@pytest.mark.parametrize("code", [0, 2])
def test_it_ends_as_its_workers_end(tmp_path, code):
    process = start(tmp_path)
    wait_for(process, *(tmp_path / f"{rank}.listens" for rank in range(2)))
    for rank in range(2):
        (tmp_path / f"{rank}.partial").write_text(str(code))
        (tmp_path / f"{rank}.partial").rename(tmp_path / f"{rank}.ends")
    ended_with, said = ended(process)
    assert ended_with == code
    if code:
        assert f"failed on {os.uname().nodename}: exit code {code}" in said and "Traceback" not in said


def test_a_killed_worker_is_named(tmp_path):
    process = start(tmp_path)
    wait_for(process, *(tmp_path / f"{rank}.listens" for rank in range(2)))
    (second,) = (w for w in psutil.Process(process.pid).children() if w.environ()["RANK"] == "1")
    second.kill()
    code, said = ended(process)
    assert code == 128 + signal.SIGKILL
    assert f"rank 1 failed on {os.uname().nodename}: ended by SIGKILL" in said


def test_each_process_has_a_log_of_its_own_and_the_end_of_the_failing_one_is_shown(tmp_path):
    logs = tmp_path / "logs"
    # Where one fails the other may be ended before it has written, so each has written twice before.
    for command, expected in (("--help", 0), ("--help", 0), ("pretran", 2)):
        process = subprocess.Popen(
            f"{sys.executable} -m launch.torchrun --standalone --nproc-per-node=2 -m launch.cli {command}".split(),
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CHIASMA_LOGS": str(logs)},
            stderr=subprocess.PIPE,
            text=True,
        )
        code, said = ended(process)
        assert code == expected
    assert "No such command 'pretran'" in said and "the end of" in said
    assert sorted(path.name for path in logs.iterdir()) == ["rank-0.log", "rank-1.log"]
    for rank in range(2):
        text = (logs / f"rank-{rank}.log").read_text()
        assert text.count(f"rank {rank} of 2 on ") >= 2, "a second start goes on in the same file"


def test_a_node_that_waits_for_another_ends_when_it_is_told_to(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = f"--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=localhost:{port} --rdzv-id=one"
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.torchrun", *arguments.split(), "-m", "launch.cli", "--help"],
        cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not any(connection.status == "LISTEN" for connection in psutil.Process(process.pid).net_connections()):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 128 + signal.SIGTERM and "ended before any worker was started" in said


def test_a_node_that_waits_for_another_gives_up_when_its_time_is_over():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = f"--rdzv-backend=c10d --rdzv-endpoint=localhost:{port} --rdzv-id=one --rdzv-conf=join_timeout=2"
    process = subprocess.Popen(
        f"{sys.executable} -m launch.torchrun --nnodes=2 {meeting} -m launch.cli --help".split(),
        cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    code, said = ended(process)
    assert code == 1 and f"2 nodes did not meet at localhost:{port}" in said and "Traceback" not in said
