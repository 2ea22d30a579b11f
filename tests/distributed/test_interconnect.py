"""`chiasma doctor --distributed` in two real processes: who is slow is named, and who does not answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HOST = socket.gethostname()
WORKER = """
import os, signal, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from launch.cli import main
from foundation.training.processes import process_group
from launch.interconnect import alone, between, measure, meeting, timer

between.SIZES, between.LINK_SIZE, alone.SQUARE = {"cpu": (2**10, 2**16 + 4)}, {"cpu": 2**16}, {"cpu": 256}
meeting.GRACE, timer.SECONDS = 0.5, 0.02

def slowed(call):
    def slowly(*arguments, **keywords):
        time.sleep(0.05)
        return call(*arguments, **keywords)

    return slowly

def freeze(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGSTOP)

if os.environ["RANK"] == "1" and os.environ["FAULT"] == "slow":
    # What has a long latency is measured at all sizes too.
    torch.mm, dist.broadcast = slowed(torch.mm), slowed(dist.broadcast)
if os.environ["FAULT"] == "frozen":
    measure.process_group = lambda timeout: process_group(timedelta(seconds=3))
if os.environ["RANK"] == "1" and os.environ["FAULT"] == "frozen":
    dist.reduce_scatter_tensor = freeze
sys.exit(main(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(*ranks: int, fault: str, timeout: float) -> list[subprocess.Popen]:
    """Some of two processes, each on a node of its own."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "FAULT": fault}
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, "doctor", "--distributed", "--json", "--timeout", str(timeout)],
            cwd=REPOSITORY,
            env={**os.environ, **meet, "OMP_NUM_THREADS": "1", "RANK": str(rank), "GROUP_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]


def test_the_slow_process_is_named_and_everything_is_measured():
    first, second = (each.communicate(timeout=120) for each in start(0, 1, fault="slow", timeout=60))
    assert second == ("", "")
    found = json.loads(first[0])
    assert found["ok"] is True and found["differences"] == []
    assert [each["rank"] for each in found["processes"]] == [0, 1]
    slow = [remark for remark in found["remarks"] if "multiplying matrices" in remark]
    assert len(slow) == 1 and slow[0].startswith(f"process 1 on {HOST} is ")
    measured = {(each["operation"], each["size"]) for each in found["collectives"]}
    names = ("all-reduce", "all-gather", "reduce-scatter", "broadcast")
    assert measured == {(name, size) for name in names for size in (2**10, 2**16)}
    for each in found["collectives"]:
        assert each["seconds"] > 0 and each["processes"] == 2
        assert each["algorithm_bandwidth"] == pytest.approx(each["size"] / each["seconds"])
    (link,) = found["links"]
    assert (link["first"], link["second"]) == (f"{HOST} (node 0)", f"{HOST} (node 1)") and link["bandwidth"] > 0


def test_a_process_that_never_comes_is_named():
    (first,), (second,) = start(0, fault="", timeout=2), start(1, fault="", timeout=2)
    out, said = first.communicate(timeout=60)
    assert first.returncode == 1 and out == ""
    assert "process 1 did not answer within 2 s, before anything was measured; 2 processes were started\n" in said
    assert "Traceback" not in said
    out, said = second.communicate(timeout=60)
    assert second.returncode == 1 and out == ""
    assert f"process 1 on {HOST}: nobody answers at 127.0.0.1:" in said and "Traceback" not in said


def test_a_process_that_freezes_in_a_collective_is_named():
    first, frozen = start(0, 1, fault="frozen", timeout=60)
    try:
        _, said = first.communicate(timeout=60)
    finally:
        frozen.kill()
        frozen.communicate()
    assert first.returncode == 1
    assert f"process 1 on {HOST} did not answer during reduce-scatter of 1024 bytes\n" in said
    assert "Traceback" not in said


def test_launched_here_it_takes_the_path_of_a_run():
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "launch", "doctor", "--gpus", "0", "--processes", "2"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes on 1 node") == 1
    for name in ("all-reduce", "all-gather", "reduce-scatter", "broadcast"):
        assert [line.split()[1:3] for line in done.stdout.splitlines() if line.split()[:1] == [name]] == [
            ["1", "KiB"], ["64", "KiB"], ["1", "MiB"], ["16", "MiB"], ["64", "MiB"],
        ]  # fmt: skip
