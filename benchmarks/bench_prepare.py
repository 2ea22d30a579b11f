"""Prepare MB/s against a bare nibabel loop over the same scans, and the growth of time and memory with patients.

Run `python benchmarks/bench_prepare.py [--cohort COHORT.yaml]`. Without a cohort, one is simulated. One process with
one thread, warm page cache, seconds of processor time; the two take turns and ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "prepare.json"


def bare_loop(paths: list[Path]) -> int:
    """What anybody would write: load each scan with nibabel and touch its voxels."""
    import nibabel
    import numpy as np

    total = 0
    for path in paths:
        total += int(np.asarray(nibabel.load(path).dataobj).shape[0])  # type: ignore[attr-defined]
    return total


def seconds(work) -> float:
    """Processor time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(cohort: Path, turns: int) -> dict:
    """Rates of the shard writer and of the bare loop over the NIfTI scans of a cohort."""
    from foundation.cohort.inventory import take_inventory
    from foundation.cohort.records import record_features
    from foundation.cohort.shards import ShardWriter
    from foundation.cohort.spec import CohortSpec
    from foundation.config import load_config
    from foundation.progress import Silent

    spec = load_config(CohortSpec, cohort)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = take_inventory(spec, folder / "tables", Silent())
        records = [
            record
            for record in plan.records
            if record.scans and all(c.scan.paths[0].is_file() for s in record.scans.values() for c in s.values())
        ]
        paths = sorted(c.scan.paths[0] for r in records for s in r.scans.values() for c in s.values())
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        schema = record_features(spec, plan.features).arrow_schema
        writer = ShardWriter(spec, plan.tables, plan.features, schema)

        def ours() -> None:
            writer.write(folder / "part.arrow", folder / "part.json", records)

        times = [(seconds(ours), seconds(lambda: bare_loop(paths))) for _ in range(turns + 1)][1:]
    return {
        "scans": len(paths),
        "megabytes_as_stored": round(megabytes, 2),
        "megabytes_per_second": {
            "prepare": round(statistics.median(megabytes / a for a, _ in times), 2),
            "nibabel": round(statistics.median(megabytes / b for _, b in times), 2),
        },
        "ratio_to_nibabel": round(statistics.median(b / a for a, b in times), 3),
    }


def growth(sizes: list[int]) -> list[dict]:
    """Wall seconds and peak memory of `chiasma prepare` for simulated cohorts of several sizes, one worker."""
    rows = []
    for patients in sizes:
        with tempfile.TemporaryDirectory() as name:
            source, out = Path(name) / "source", Path(name) / "cohort"
            run("simulate", source, "--patients", patients)
            start = time.perf_counter()
            peak = run("prepare", source / "cohort.yaml", "--out", out, "--workers", 1)
            rows.append(
                {
                    "patients": patients,
                    "seconds": round(time.perf_counter() - start, 1),
                    "peak_megabytes": round(peak / 1e3),
                }
            )
    return rows


def run(*arguments: object) -> int:
    """Run the command line; returns the peak resident memory of the process in kB."""
    # Not getrusage: a new process inherits the peak of the one that started it.
    code = (
        "import re, sys; from pathlib import Path; from launch.cli import main; code = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()).group(1)); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, help="cohort.yaml with NIfTI scans; simulated by default")
    parser.add_argument("--patients", type=int, default=60, help="of the simulated cohort")
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 200])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cohort = arguments.cohort
        if cohort is None:
            run("simulate", Path(name) / "source", "--patients", arguments.patients)
            cohort = Path(name) / "source" / "cohort.yaml"
        result = measure(cohort, arguments.turns)
    result["cohort"] = "simulated" if arguments.cohort is None else arguments.cohort.stem
    result["growth"] = growth(arguments.growth)
    result["machine"] = {"processor": platform.machine(), "python": platform.python_version()}
    print(
        f"prepare: {result['megabytes_per_second']['prepare']} MB/s of source, {result['ratio_to_nibabel']} x nibabel"
    )
    for row in result["growth"]:
        print(f"{row['patients']} patients: {row['seconds']} s, peak {row['peak_megabytes']} MB, one worker")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
