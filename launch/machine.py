"""What this process may use of its machine: cores, memory and disk, within the limits that it runs under."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(cores, round(quota))) if quota else cores


def memory_limit() -> int | None:
    """Bytes that the control groups of this process may use, or None where there is no limit."""
    folders = _own_groups("memory")
    texts = [_text(folder / name) for folder in folders for name in ("memory.max", "memory.limit_in_bytes")]
    # The first version of control groups writes "no limit" as a number beyond any machine.
    return min((int(text) for text in texts if text.isdecimal() and int(text) < 2**60), default=None)


def free_disk(folder: Path) -> int | None:
    """Bytes free for this user in a folder, or None where there is no such folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def cpu_flags() -> set[str]:
    """Instruction sets of the CPU, as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.split()}


def _cpu_quota() -> float | None:
    quotas = []
    for folder in _own_groups("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _own_groups(controller: str) -> list[Path]:
    """Folders of the control groups of this process, and of those around them, in either version."""
    folders = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        base = CGROUPS / controller if names else CGROUPS
        own = base / path.lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(base))]
    return folders


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
