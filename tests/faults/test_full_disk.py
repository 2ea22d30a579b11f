"""A full disk: one clear error, nothing half written, and the same command goes on once there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to mount a tmpfs")


@pytest.fixture
def small_disk(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def chiasma(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True
    )


def test_prepare_on_a_full_disk(simulated: Path, small_disk: Path):
    command = ("prepare", simulated / "source" / "cohort.yaml", "--out", small_disk / "cohort", "--workers", "1")
    failed = chiasma(*command)
    assert failed.returncode == 1
    assert "disk is full" in failed.stderr and "Traceback" not in failed.stderr
    assert not (small_disk / "cohort" / "cohort.json").exists()
    assert not list(small_disk.rglob("*.partial")), "half-written files stay behind"
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    assert chiasma(*command).returncode == 0
    assert (small_disk / "cohort" / "cohort.json").exists()
