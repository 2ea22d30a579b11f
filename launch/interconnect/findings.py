"""What was measured between processes, the bandwidths that follow from it, and what of it is told in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, median_high
from typing import Literal

from foundation.wording import listed
from launch.doctor import GIGABYTE, LEAST_DISK, LEAST_SHARED_MEMORY

Operation = Literal["all-reduce", "all-gather", "reduce-scatter", "broadcast"]

SLOWER = 1.25
"""How many times slower than the others somebody is told."""

LATE = 5.0
"""Seconds by which a process comes after most others that are told."""

ALIKE = 0.95
"""Share of the memory of most below which less memory is told; firmware takes a little more or less of it."""

CLOCK = 1.0
"""Seconds by which a clock differs that are told."""


@dataclass(frozen=True)
class Process:
    """One process, as it found itself.

    Attributes:
        rank: Its number.
        host: The name of its machine.
        node: Number of the node; two may have one name.
        device: What it computes on.
        memory: Bytes of that device; of a processor, all of the machine.
        versions: What has to be the same for all, by name.
        clock: Seconds by which its clock is before that of process 0.
        disk: Bytes free in its working folder.
        shared_memory: Bytes free in /dev/shm; None where there is none.
        late: Seconds after the first that it came.
        multiply: Floating-point operations per second of its own matrix multiplications, all processes at once.
        copy: Bytes per second that it copies on its device, all processes at once.
    """

    rank: int
    host: str
    node: int
    device: str
    memory: int
    versions: dict[str, str]
    clock: float
    disk: int | None
    shared_memory: int | None
    late: float
    multiply: float
    copy: float

    @property
    def name(self) -> str:
        """For sentences."""
        return f"process {self.rank} on {self.host}"


@dataclass(frozen=True)
class Timing:
    """One collective of one size.

    Attributes:
        operation: Which.
        size: Bytes: of the vector that is reduced or broadcast; of all-gather and reduce-scatter, of the longer side.
        seconds: Of one call, the median of repeats on the slowest process.
        repeats: How many.
        processes: Among how many.
    """

    operation: Operation
    size: int
    seconds: float
    repeats: int
    processes: int

    @property
    def algorithm_bandwidth(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds

    @property
    def bus_bandwidth(self) -> float:
        """Bytes per second that each link carries, to be held against what the hardware promises.

        All-reduce sends 2 (n - 1) / n of its bytes over each link, all-gather and reduce-scatter (n - 1) / n,
        broadcast all: the convention of nccl-tests (doc/PERFORMANCE.md), whose numbers these may be compared with.
        """
        n = self.processes
        share = {"all-reduce": 2 * (n - 1) / n, "broadcast": 1.0}.get(self.operation, (n - 1) / n)
        return self.algorithm_bandwidth * share


@dataclass(frozen=True)
class Link:
    """Between the first processes of two neighbouring nodes.

    Attributes:
        first: Name of a node.
        second: Name of the next.
        size: Bytes that were sent there and back.
        seconds: For one direction, half of there and back, the median of repeats.
    """

    first: str
    second: str
    size: int
    seconds: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second, the mean of both directions."""
        return self.size / self.seconds


@dataclass(frozen=True)
class Findings:
    """All that was found.

    Attributes:
        processes: By rank.
        timings: Of collectives.
        links: Of neighbouring nodes in a ring; none on one node.
    """

    processes: tuple[Process, ...]
    timings: tuple[Timing, ...]
    links: tuple[Link, ...]

    @property
    def differences(self) -> list[str]:
        """What a run would refuse to begin with, as sentences."""
        first, found = self.processes[0], []
        for process in self.processes[1:]:
            differ = [name for name, version in process.versions.items() if version != first.versions[name]]
            if differ:
                found.append(f"{process.name} differs from process 0 in {listed(differ)}: a run would refuse to begin")
        return found

    @property
    def remarks(self) -> list[str]:
        """What a run would suffer from, as sentences."""
        return [*self._devices(), *self._slow(), *self._late(), *self._clocks(), *self._room()]

    def to_json(self) -> str:
        """One object: `ok`, and the attributes of these classes; seconds, bytes, and both per second."""
        collectives = [
            {**asdict(t), "algorithm_bandwidth": t.algorithm_bandwidth, "bus_bandwidth": t.bus_bandwidth}
            for t in self.timings
        ]
        found = {
            "ok": not self.differences,
            "processes": [asdict(process) for process in self.processes],
            "collectives": collectives,
            "links": [{**asdict(link), "bandwidth": link.bandwidth} for link in self.links],
            "differences": self.differences,
            "remarks": self.remarks,
        }
        return json.dumps(found, indent=2)

    def _devices(self) -> list[str]:
        ((device, _),) = Counter(process.device for process in self.processes).most_common(1)
        memory = median_high(process.memory for process in self.processes)
        return [
            *self._told(lambda p: p.device != device, lambda p: f"has {p.device}, where most have {device}"),
            *self._told(
                lambda p: p.memory < ALIKE * memory,
                lambda p: f"has {gigabytes(p.memory)} of memory, where most have {gigabytes(memory)}",
            ),
        ]

    def _slow(self) -> list[str]:
        names = [process.name for process in self.processes]
        links = [f"the link between {link.first} and {link.second}" for link in self.links]
        rates: Sequence[tuple[str, list[str], list[float]]] = (
            ("multiplying matrices", names, [process.multiply for process in self.processes]),
            ("copying memory", names, [process.copy for process in self.processes]),
            ("sending", links, [link.bandwidth for link in self.links]),
        )
        return [
            f"{name} is {times:.1f} x slower than the median in {doing}"
            for doing, who, values in rates
            for name, times in zip(who, times_slower(values), strict=True)
            if times > SLOWER
        ]

    def _late(self) -> list[str]:
        usual = median(process.late for process in self.processes)
        return self._told(
            lambda p: p.late - usual > LATE, lambda p: f"came {p.late - usual:.0f} s after most: its node starts slowly"
        )

    def _clocks(self) -> list[str]:
        return self._told(
            lambda p: abs(p.clock) > CLOCK, lambda p: f"has a clock that differs by {p.clock:+.1f} s from process 0"
        )

    def _room(self) -> list[str]:
        little = [("/dev/shm", "shared_memory", LEAST_SHARED_MEMORY), ("its working folder", "disk", LEAST_DISK)]
        found = []
        for place, attribute, least in little:
            for process in self.processes:
                free = getattr(process, attribute)
                if free is not None and free < least:
                    found.append(f"{process.name} has {gigabytes(free)} free in {place}, below {gigabytes(least)}")
        return found

    def _told(self, which: Callable[[Process], bool], words: Callable[[Process], str]) -> list[str]:
        return [f"{process.name} {words(process)}" for process in self.processes if which(process)]


def times_slower(rates: Sequence[float]) -> list[float]:
    """How many times slower each is than the median; of an even number than the faster of the middle two.

    So one slow process of two is held against the other, and not against their mean.
    """
    return [median_high(rates) / rate for rate in rates] if rates else []


def gigabytes(amount: float) -> str:
    """An amount of memory in words."""
    return f"{amount / GIGABYTE:.1f} GB"
