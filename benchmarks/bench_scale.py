"""Start-up, memory and time per batch at 10^4 and 10^6 records: shards are real, and the same one many times.

Run `python benchmarks/bench_scale.py` (minutes). One process with one thread, seconds of processor time.
Every size is measured in a process of its own, from opening the cohort over the first batch to three times 100 batches;
memory is what the process has of its own, without pages of mapped files, after the start and after each hundred.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foundation.data.batch import Batch
    from pretrain.config import PretrainConfig

RESULT = Path(__file__).parent / "results" / "scale.json"
PER_SHARD = 128
CONFIG = Path(__file__).parents[1] / "configs" / "pretrain" / "tiny.yaml"


def template(folder: Path) -> Path:
    """A prepared cohort of simulated patients, all in one shard."""
    import pyarrow as pa

    from foundation.cohort.open_shards import OpenShard
    from foundation.cohort.prepare import prepare
    from foundation.files.cache import Held
    from foundation.progress import Silent
    from foundation.simulation.simulate import simulate

    simulate(folder / "source", patients=PER_SHARD, seed=0, progress=lambda done, total: None)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    paths = sorted((folder / "cohort" / "records").glob("*.arrow"))
    table = pa.concat_tables([OpenShard(Held(path)).table for path in paths])
    with pa.OSFile(str(folder / "shard.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return folder


def repeat(made: Path, out: Path, records: int) -> None:
    """A cohort of many records, each shard of which is another name of the same file; only patients have own names."""
    import pyarrow as pa

    from foundation.cohort.index import FILE, write_index
    from foundation.cohort.manifest import Manifest, Shard
    from foundation.cohort.store import PreparedCohort

    cohort = PreparedCohort(made / "cohort")
    manifest, count = cohort.manifest, -(-records // PER_SHARD)
    (out / "records").mkdir(parents=True)
    entry = Shard.of(made / "shard.arrow")
    names = [f"part-{number:05d}.arrow" for number in range(count)]
    for name in names:
        os.link(made / "shard.arrow", out / "records" / name)
    table = pa.concat_tables([cohort.index.table] * count)
    patients = pa.array([f"P{number:07d}" for number in range(len(table))])
    table = table.set_column(table.column_names.index("patient"), "patient", patients)
    shutil.copy(made / "cohort" / "features.json", out)
    update = {
        "patients": len(table),
        "records": len(table),
        "shards": dict.fromkeys(names, entry),
        "files": {**manifest.files, FILE: write_index(out, table, dict.fromkeys(names, PER_SHARD))},
    }
    (out / "cohort.json").write_text(Manifest.model_validate(manifest.model_copy(update=update)).to_json())


def memory() -> float:
    """Megabytes of this process that are its own, not of files."""
    import psutil

    info = psutil.Process().memory_info()
    return (info.rss - info.shared) / 1e6


class Laps:
    """Seconds of processor time of one part after another."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._clock = time.process_time()

    def lap(self, name: str) -> None:
        """What was done since the last lap has this name."""
        now = time.process_time()
        self.parts[name] = round(now - self._clock, 3)
        self._clock = now


def begin(config: PretrainConfig, steps: int, laps: Laps) -> Iterator[Batch]:
    """What `chiasma pretrain` does until its first step, but for the evaluation before training."""
    from foundation.data.dataset import load
    from pretrain.run import _make

    made = _make(config)
    laps.lap("cohort, preprocessing, model and its initial weights")
    order = made.drawing.order(config, batches=3 * steps + 1)
    batches = iter(load(made.dataset, order))
    next(batches)
    laps.lap("first batch")
    return batches


def measure(folder: Path, shuffle: str, steps: int) -> dict:
    """Seconds of each part of the start and of a batch, and megabytes of memory."""
    import torch

    from foundation.config import load_config
    from pretrain.config import PretrainConfig

    torch.set_num_threads(1)
    config = load_config(PretrainConfig, CONFIG, [f"cohort={folder}", f"order={{shuffle: {shuffle}}}"])
    before, laps = memory(), Laps()
    batches = begin(config, steps, laps)
    megabytes, rates = [memory() - before], []
    for _ in range(3):
        began = time.process_time()
        for _ in range(steps):
            next(batches)
        rates.append(1000 * (time.process_time() - began) / steps)
        megabytes.append(memory() - before)
    return {
        "shuffle": shuffle,
        "start_up_seconds": round(sum(laps.parts.values()), 2),
        "parts": laps.parts,
        "milliseconds_per_batch": [round(rate, 2) for rate in rates],
        "batch_size": config.batch_size,
        "megabytes": [round(each) for each in megabytes],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="Keep the cohorts there.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shuffle", default="full", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.shuffle, arguments.steps)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        if not (folder / "shard.arrow").is_file():
            template(folder)
        for size in arguments.sizes:
            if not (folder / str(size)).is_dir():
                repeat(folder, folder / str(size), size)
            for shuffle in ("full", "blocks"):
                command = [sys.executable, __file__, "--measure", folder / str(size), "--shuffle", shuffle]
                done = subprocess.run(
                    [*map(str, command), "--steps", str(arguments.steps)], check=True, capture_output=True, text=True
                )
                rows.append({"records": size, **json.loads(done.stdout.splitlines()[-1])})
                print(json.dumps(rows[-1], indent=2), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    RESULT.write_text(json.dumps({"sizes": rows, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
