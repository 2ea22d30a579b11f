"""Peak memory and time of `chiasma prepare` for 50,000 patients with 20,000 genes.

Run `python benchmarks/bench_wide.py` (minutes; 14 GB of disk). The table is an .h5ad file of random numbers, read by
one worker. Memory is sampled: what the process has of its own, and with it the pages of mapped files, which the system
takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "wide.json"
COHORT = """
name: wide
patients: {barcode: '(?P<patient>P\\d+)'}
modalities:
  rna:
    kind: omics
    source: {format: h5ad, files: rna.h5ad}
    unit: log2(TPM + 1)
"""
ROWS = 500


def write(folder: Path, patients: int, genes: int) -> Path:
    """A table and the cohort.yaml that names it."""
    import anndata
    import h5py
    import numpy as np
    import pandas as pd

    obs = pd.DataFrame(index=[f"P{number:06d}" for number in range(patients)])
    var = pd.DataFrame(index=[f"GENE{number}" for number in range(genes)])
    anndata.AnnData(obs=obs, var=var).write_h5ad(folder / "rna.h5ad")
    block = np.random.default_rng(0).gamma(2, 2, (ROWS, genes)).astype(np.float32)
    with h5py.File(folder / "rna.h5ad", "a") as file:
        file.pop("X", None)
        x = file.create_dataset("X", (patients, genes), "f4", chunks=(64, genes))
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, patients, ROWS):
            x[start : start + ROWS] = np.roll(block, start, axis=1)[: patients - start]
    (folder / "cohort.yaml").write_text(COHORT)
    return folder / "cohort.yaml"


def prepare(cohort: Path, out: Path) -> dict:
    """Run the command and watch its memory."""
    import psutil

    command = [sys.executable, "-m", "launch.cli", "prepare", cohort, "--out", out, "--workers", "1"]
    running = subprocess.Popen(
        [*map(str, command)], cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    process, own, resident, spent = psutil.Process(running.pid), 0, 0, 0.0
    while running.poll() is None:
        try:
            memory, times = process.memory_info(), process.cpu_times()
        except psutil.NoSuchProcess:
            break
        own, resident = max(own, memory.rss - memory.shared), max(resident, memory.rss)
        spent = max(spent, times.user + times.system)
        time.sleep(0.05)
    _, error = running.communicate()
    if running.returncode:
        raise SystemExit(error.decode())
    return {
        "processor_seconds": round(spent, 1),
        "peak_megabytes_own": round(own / 1e6),
        "peak_megabytes_with_mapped_files": round(resident / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--genes", type=int, default=20_000)
    arguments = parser.parse_args()
    rows = []
    for patients in arguments.patients:
        with tempfile.TemporaryDirectory() as name:
            cohort = write(Path(name), patients, arguments.genes)
            found = prepare(cohort, Path(name) / "cohort")
            rows.append({"patients": patients, "genes": arguments.genes, **found})
        print(json.dumps(rows[-1], indent=2), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    RESULT.write_text(json.dumps({"sizes": rows, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
