"""One process by itself: where it runs, with which code, and how fast it multiplies and copies while all others do."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import psutil
import torch

from foundation.collectives import everyones, rank
from foundation.training.agreement import versions_of_code
from launch.interconnect.findings import Process
from launch.interconnect.meeting import Meeting
from launch.interconnect.timer import Timer
from launch.machine import free_disk, memory_limit, usable_cores

SQUARE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied: float32 on a processor, bfloat16 on a GPU."""

COPIED = {"cpu": 2**26, "cuda": 2**30}
"""Bytes."""


def find_processes(meeting: Meeting, waited: float, watch: Timer) -> tuple[Process, ...]:
    """All processes by rank, the same on each.

    Args:
        meeting: Of them.
        waited: Seconds that this one waited for the last to come.
        watch: For the device of this process.
    """
    last = max(everyones(waited))
    clocks = everyones(time.time())
    with meeting.for_all("multiplying matrices"):
        multiply = _multiplications(watch)
    with meeting.for_all("copying memory"):
        copy = _copies(watch)
    device, memory = _device(watch.device)
    ours = Process(
        rank=rank(),
        host=socket.gethostname(),
        node=int(os.environ.get("GROUP_RANK", "0")),
        device=device,
        memory=memory,
        versions=versions_of_code(),
        clock=clocks[rank()] - clocks[0],
        disk=free_disk(Path.cwd()),
        shared_memory=free_disk(Path("/dev/shm")),
        late=last - waited,
        multiply=multiply,
        copy=copy,
    )
    return tuple(everyones(ours))


def _device(device: torch.device) -> tuple[str, int]:
    """Its name, and bytes of its memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.name, properties.total_memory
    total = psutil.virtual_memory().total
    return f"CPU, {usable_cores()} cores", min(total, memory_limit() or total)


def _multiplications(watch: Timer) -> float:
    """Floating-point operations per second."""
    size = SQUARE[watch.device.type]
    number = torch.float32 if watch.device.type == "cpu" else torch.bfloat16
    # Random: a GPU multiplies ones faster than what a run has.
    left = torch.randn(size, size, dtype=number, device=watch.device)
    out = torch.empty_like(left)
    return 2 * size**3 / watch.alone(lambda: torch.mm(left, left, out=out))


def _copies(watch: Timer) -> float:
    """Bytes per second that are read here and written there."""
    source = torch.zeros(COPIED[watch.device.type], dtype=torch.uint8, device=watch.device)
    target = torch.ones_like(source)
    return source.numel() / watch.alone(lambda: target.copy_(source))
