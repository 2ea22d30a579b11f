"""Batch scripts of `chiasma launch` on a real SLURM of two nodes."""

from __future__ import annotations


def test_smoke(slurm, tmp_path):
    (tmp_path / "a.sh").write_text("#!/bin/bash\nsrun hostname\n")
    n = slurm.call("sbatch", "--parsable", "-N", "2", "-o", str(tmp_path / "o"), str(tmp_path / "a.sh")).strip()
    job = slurm.ended(n)
    assert job["JobState"] == "COMPLETED", job
    assert len((tmp_path / "o").read_text().split()) == 2
