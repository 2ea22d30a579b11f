"""What is told of processes that were measured: bandwidths by their definition, and who or what is slow."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from launch.interconnect import timer
from launch.interconnect.between import rounds
from launch.interconnect.findings import Findings, Link, Process, Timing, times_slower
from launch.interconnect.table import print_findings

GB = 10**9


def process(rank: int, **changes) -> Process:
    found = Process(
        rank=rank, host=f"node{rank}", node=rank, device="GPU", memory=80 * GB, versions={"the code of chiasma": "a"},
        clock=0.0, disk=100 * GB, shared_memory=8 * GB, late=0.0, multiply=4e14, copy=1e12,
    )  # fmt: skip
    return replace(found, **changes)


def findings(*changes: dict, links: tuple[Link, ...] = ()) -> Findings:
    timings = (Timing("all-reduce", 2**20, 0.002, 20, len(changes)),)
    return Findings(tuple(process(rank, **each) for rank, each in enumerate(changes)), timings, links)


def bytes_over_a_link(operation: str, size: int, n: int) -> float:
    """What one process of a ring sends to the next, counted step by step."""
    chunk = size / n
    reduced = sum(chunk for _ in range(n - 1))
    gathered = sum(chunk for _ in range(n - 1))
    sent = {"all-reduce": reduced + gathered, "all-gather": gathered, "reduce-scatter": reduced}
    return sent.get(operation, sum(chunk for _ in range(n)))


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("operation", ["all-reduce", "all-gather", "reduce-scatter", "broadcast"])
def test_bus_bandwidth_is_what_a_ring_sends_over_each_link(operation, n):
    timing = Timing(operation, 3 * 2**20, 0.25, 5, n)
    assert timing.algorithm_bandwidth == 12 * 2**20
    assert timing.bus_bandwidth == pytest.approx(bytes_over_a_link(operation, 3 * 2**20, n) / 0.25)


def test_a_time_is_that_of_the_slowest_process_which_also_says_how_often_it_is_taken(monkeypatch):
    monkeypatch.setattr(timer, "everyones", lambda mine: [mine, 3.0])
    calls = []
    watch = timer.Timer(torch.device("cpu"), timeout=1)
    assert watch.together(lambda: calls.append(1)) == (3.0, timer.FEWEST)
    assert len(calls) == 2 + timer.FEWEST


@pytest.mark.parametrize("nodes", range(1, 10))
def test_each_link_of_a_ring_is_measured_once_and_a_node_with_one_neighbour_at_a_time(nodes):
    found = rounds(nodes)
    links = Counter(frozenset(pair) for pairs in found for pair in pairs)
    expected = {frozenset((node, (node + 1) % nodes)) for node in range(nodes)} if nodes > 1 else set()
    assert set(links) == expected and set(links.values()) <= {1}
    assert all(len({node for pair in pairs for node in pair}) == 2 * len(pairs) for pairs in found)


def test_one_of_two_is_slow_beside_the_other_and_not_beside_their_mean():
    assert times_slower([1.0, 2.0]) == [2.0, 1.0]
    assert times_slower([4.0, 1.0, 2.0]) == [0.5, 2.0, 1.0]
    assert times_slower([]) == []


def test_processes_that_are_alike_are_told_to_be(capsys):
    found = findings({}, {"multiply": 4e14 / 1.2, "late": 3.0, "clock": 0.4, "memory": 79 * GB}, {})
    assert found.remarks == [] and found.differences == []
    assert json.loads(found.to_json())["ok"] is True
    print_findings(found)
    assert "All processes are alike and answer." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"multiply": 1e14}, "is 4.0 x slower than the median in multiplying matrices"),
        ({"copy": 5e11}, "is 2.0 x slower than the median in copying memory"),
        ({"device": "old GPU"}, "has old GPU, where most have GPU"),
        ({"memory": 40 * GB}, "has 40.0 GB of memory, where most have 80.0 GB"),
        ({"late": 31.0}, "came 31 s after most: its node starts slowly"),
        ({"clock": -7.0}, "has a clock that differs by -7.0 s from process 0"),
        ({"shared_memory": 64 * 10**6}, "has 0.1 GB free in /dev/shm, below 1.0 GB"),
        ({"disk": GB}, "has 1.0 GB free in its working folder, below 10.0 GB"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_run_would_suffer_from_is_told_with_its_process(changes, said, capsys):
    found = findings({}, changes, {})
    assert found.remarks == [f"process 1 on node1 {said}"]
    print_findings(found)
    out = capsys.readouterr().out
    assert f"process 1 on node1 {said}\n" in out and "A run would suffer" in out


def test_a_slow_link_is_named_by_its_two_nodes(capsys):
    seconds = {("a", "b"): 0.1, ("b", "c"): 0.3, ("c", "a"): 0.11}
    found = findings({}, {}, {}, links=tuple(Link(*names, 10**8, time) for names, time in seconds.items()))
    assert found.remarks == ["the link between b and c is 2.7 x slower than the median in sending"]
    print_findings(found)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["b", "c", "95.37", "MiB", "300.00", "ms", "0.333", "GB/s"] in rows


def test_other_code_is_named_and_a_run_would_not_begin(capsys):
    found = findings({}, {}, {"versions": {"the code of chiasma": "b"}})
    told = "process 2 on node2 differs from process 0 in the code of chiasma: a run would refuse to begin"
    assert found.differences == [told] and json.loads(found.to_json())["ok"] is False
    print_findings(found)
    assert "A run would not begin" in capsys.readouterr().out
