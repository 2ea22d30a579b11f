"""What a process may use, on machines described by files of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch import machine


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write files of control groups; `own` is what /proc/self/cgroup says."""

    def write(own: str, files: dict[str, str]) -> None:
        texts = {machine.CGROUPS / name: text for name, text in files.items()}
        texts[Path("/proc/self/cgroup")] = own
        monkeypatch.setattr(machine, "_text", lambda path: texts.get(path, "").strip())

    return write


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/", {}, None),
        ("0::/a/b", {"a/memory.max": "5000", "a/b/memory.max": "max"}, 5000),
        ("0::/a/b", {"a/memory.max": "5000", "a/b/memory.max": "3000", "memory.max": "9000"}, 3000),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": "7000"}, 7000),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("4:cpu,cpuacct:/job", {"memory/job/memory.limit_in_bytes": "7000"}, None),
        ("", {}, None),
    ],
)
def test_memory_limit(groups, own, files, limit):
    groups(own, files)
    assert machine.memory_limit() == limit


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {}, 8),
        ("0::/a", {"a/cpu.max": "150000 100000"}, 2),
        ("0::/a", {"a/cpu.max": "max 100000"}, 8),
        ("0::/a", {"a/cpu.max": "10000 100000"}, 1),
        ("0::/a", {"a/cpu.max": "6400000 100000"}, 8),
        ("3:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("3:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_usable_cores(groups, monkeypatch, own, files, cores):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    groups(own, files)
    assert machine.usable_cores() == cores


def test_usable_cores_where_a_process_cannot_be_bound(groups, monkeypatch):
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    groups("", {})
    assert machine.usable_cores() == 1


def test_free_disk(tmp_path):
    assert (machine.free_disk(tmp_path) or 0) > 0
    assert machine.free_disk(tmp_path / "nowhere") is None
