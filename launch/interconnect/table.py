"""What was found between processes, as tables for a terminal or a log, and in words below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from foundation.wording import counted
from launch.doctor import GIGABYTE
from launch.interconnect.findings import Findings, Link, Process, Timing, gigabytes

if TYPE_CHECKING:
    from rich.table import Table


def print_findings(findings: Findings) -> None:
    """Print tables of processes, links and collectives, and what is remarkable below them."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    # A log has no width of its own; lines of tables stay whole there.
    console = console if console.is_terminal else Console(width=max(console.width, 120))
    nodes = len({process.node for process in findings.processes})
    heading = f"{counted(len(findings.processes), 'process', 'processes')} on {counted(nodes, 'node')}"
    console.print(Text(heading, "bold"))
    console.print(_table(PROCESS_COLUMNS, map(_of_process, findings.processes)))
    if findings.links:
        console.print(_table(LINK_COLUMNS, map(_of_link, findings.links)))
    console.print(_table(TIMING_COLUMNS, map(_of_timing, findings.timings)))
    console.print(
        "A time is the median of repeats on the slowest process. Algorithm bandwidth is size / time. "
        "Bus bandwidth is that times 2 (n - 1) / n for all-reduce, (n - 1) / n for all-gather and reduce-scatter, 1 "
        "for broadcast, of n processes: the convention of nccl-tests."
    )
    for sentence in (*findings.differences, *findings.remarks):
        console.print(Text(f"  {sentence}", "yellow"), soft_wrap=True)
    console.print(_verdict(findings))


PROCESS_COLUMNS = ("process", "node", "device", "memory", "multiply", "copy", "came after", "/dev/shm", "disk", "clock")
LINK_COLUMNS = ("node", "next", "size", "time", "bandwidth")
TIMING_COLUMNS = ("collective", "size", "repeats", "time", "algorithm bandwidth", "bus bandwidth")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _of_process(process: Process) -> tuple[str, ...]:
    return (
        str(process.rank),
        process.host,
        process.device,
        gigabytes(process.memory),
        f"{process.multiply / 1e12:.2f} TFLOP/s",
        _rate(process.copy),
        f"{process.late:.1f} s",
        "–" if process.shared_memory is None else gigabytes(process.shared_memory),
        "–" if process.disk is None else gigabytes(process.disk),
        f"{process.clock:+.2f} s",
    )


def _of_link(link: Link) -> tuple[str, ...]:
    return link.first, link.second, _size(link.size), _time(link.seconds), _rate(link.bandwidth)


def _of_timing(timing: Timing) -> tuple[str, ...]:
    return (
        timing.operation,
        _size(timing.size),
        str(timing.repeats),
        _time(timing.seconds),
        _rate(timing.algorithm_bandwidth),
        _rate(timing.bus_bandwidth),
    )


def _verdict(findings: Findings) -> str:
    if findings.differences:
        return "A run would not begin on these processes."
    return "A run would suffer from what is told above." if findings.remarks else "All processes are alike and answer."


def _rate(amount: float) -> str:
    return f"{amount / GIGABYTE:.3g} GB/s" if amount >= 1e8 else f"{amount / 1e6:.3g} MB/s"


def _size(amount: int) -> str:
    return next(f"{amount / unit:.4g} {name}" for unit, name in UNITS if amount >= unit)


UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
