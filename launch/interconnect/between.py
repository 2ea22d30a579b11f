"""What goes between processes: the collectives of a run over sizes, and each link of a ring of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import torch
import torch.distributed as dist

from foundation.collectives import everyones, gather_rows, rank, world_size
from launch.interconnect.findings import Link, Operation, Process, Timing
from launch.interconnect.meeting import Meeting
from launch.interconnect.timer import Timer

SIZES = {"cpu": (2**10, 2**16, 2**20, 2**24, 2**26), "cuda": (2**10, 2**16, 2**20, 2**24, 2**26, 2**28, 2**30)}
"""Bytes."""

LONGEST = 0.5
"""Seconds; of a collective that takes longer, larger sizes are left out."""

LINK_SIZE = {"cpu": 2**24, "cuda": 2**28}
"""Bytes."""

LINK_REPEATS = 5


def time_collectives(meeting: Meeting, watch: Timer) -> Iterator[Timing]:
    """Each collective of a run over sizes, the same on every process."""
    operations: tuple[Operation, ...] = ("all-reduce", "all-gather", "reduce-scatter", "broadcast")
    for operation in operations:
        last: Timing | None = None
        for size in SIZES[watch.device.type]:
            # In float32, and as many for each process.
            each = max(1, size // 4 // world_size())
            if last and last.seconds > LONGEST:
                break
            with meeting.for_all(f"{operation} of {size} bytes"):
                seconds, repeats = watch.together(_call(operation, each, watch.device))
            last = Timing(operation, 4 * each * world_size(), seconds, repeats, world_size())
            yield last


def _call(operation: Operation, each: int, device: torch.device) -> Callable[[], object]:
    """One collective, to be repeated; zeros stay zeros when they are summed."""
    part, whole = torch.zeros(each, device=device), torch.zeros(each * world_size(), device=device)
    calls: dict[Operation, Callable[[], object]] = {
        "all-reduce": partial(dist.all_reduce, whole),
        "all-gather": partial(gather_rows, part, [each] * world_size()),
        "reduce-scatter": partial(dist.reduce_scatter_tensor, part, whole),
        "broadcast": partial(dist.broadcast, whole, src=0),
    }
    return calls[operation]


def time_links(meeting: Meeting, watch: Timer, processes: Sequence[Process]) -> Iterator[Link]:
    """The links between the first processes of neighbouring nodes, as many at once as have no node in common."""
    first = {process.node: process for process in reversed(processes)}
    nodes = [first[node] for node in sorted(first)]
    alone = {process.host for process in nodes}
    names = [p.host if len(alone) == len(nodes) else f"{p.host} (node {p.node})" for p in nodes]
    size = LINK_SIZE[watch.device.type]
    for pairs in rounds(len(nodes)):
        with meeting.for_all("sending between neighbouring nodes"):
            mine = [_there_and_back(nodes[a].rank, nodes[b].rank, size, watch) for a, b in pairs]
        for number, (a, b) in enumerate(pairs):
            yield Link(names[a], names[b], size, everyones(mine)[nodes[a].rank][number] / 2)


def rounds(nodes: int) -> list[list[tuple[int, int]]]:
    """Neighbours in a ring, in rounds in which each node has one neighbour."""
    if nodes < 2:
        return []
    ring = [(node, (node + 1) % nodes) for node in range(nodes if nodes > 2 else 1)]
    # Of an odd number, the last would meet the first twice.
    rest = [ring.pop()] if nodes > 2 and nodes % 2 else []
    return [pairs for pairs in (ring[::2], ring[1::2], rest) if pairs]


def _there_and_back(here: int, there: int, size: int, watch: Timer) -> float:
    """Seconds for which a vector goes from one process to another and back; 0 on all others."""
    if rank() not in (here, there):
        return 0.0
    other = there if rank() == here else here
    vector = torch.zeros(size, dtype=torch.uint8, device=watch.device)
    calls = (partial(dist.send, vector, other), partial(dist.recv, vector, other))

    def exchange() -> None:
        for call in calls if rank() == here else reversed(calls):
            call()

    watch.seconds(exchange)
    return median(watch.seconds(exchange) for _ in range(LINK_REPEATS))
