"""Start-up, memory and seconds per step at 10^4 and 10^6 records: shards are real, and the same one many times.

Run `python benchmarks/bench_scale.py` (minutes). One process with one thread. Every size is measured in a process of
its own, from opening the cohort to the steps of training.
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
from pathlib import Path

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


def measure(folder: Path, shuffle: str, steps: int) -> dict:
    """Seconds of each part of the start, of a batch and of a step, and megabytes of memory."""
    import itertools

    import torch
    from foundation.cohort.store import PreparedCohort
    from foundation.config import load_config
    from foundation.data.alignment import align
    from foundation.data.dataset import CohortDataset, load
    from foundation.data.sampler import PatientOrder
    from foundation.data.scaling import fit_preprocessing
    from foundation.training.parallel import Parallel
    from pretrain.config import PretrainConfig
    from pretrain.identity import identify
    from pretrain.run import _build, _refuse_unpaired
    from pretrain.split import split

    torch.set_num_threads(1)
    config = load_config(PretrainConfig, CONFIG, [f"cohort={folder}", f"order={{shuffle: {shuffle}}}"])
    parallel = Parallel(config.precision)
    parts, before = {}, memory()
    clock = time.process_time()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.process_time()
        parts[name] = round(now - clock, 3)
        clock = now

    cohort = PreparedCohort(config.cohort)
    lap("open")
    training, _ = split(cohort, config.held_out, config.seed)
    lap("split")
    aligned = align(fit_preprocessing(cohort, training, config.preprocessing), cohort)
    lap("fit preprocessing")
    pretraining = _build(config, aligned, training, parallel.device)
    _refuse_unpaired(pretraining, aligned, training)
    lap("model and its initial weights")
    identify(config, cohort, training)
    lap("identity")
    data = CohortDataset(aligned, training, seed=config.seed, dropout=config.dropout, augmentation=config.augmentation)
    build = config.order.build(cohort.shards_of(training))
    order = PatientOrder(training, config.batch_size, seed=config.seed, batches=4 * steps, shuffle=build)
    batches = iter(load(data, order))
    next(batches)
    lap("first batch")
    start = sum(parts.values())
    for _ in itertools.islice(batches, steps):
        pass
    began = time.process_time()
    for _ in itertools.islice(batches, steps):
        pass
    spent = time.process_time() - began
    memory_half = memory()
    for _ in itertools.islice(batches, steps):
        pass
    return {
        "records": len(cohort),
        "shuffle": shuffle,
        "start_up_seconds": round(start, 2),
        "parts": parts,
        "milliseconds_per_batch": round(1000 * spent / steps, 2),
        "batch_size": config.batch_size,
        "megabytes_after_start": round(memory_half - before),
        "megabytes_after_as_many_steps_again": round(memory() - before),
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
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(rows[-1], indent=2), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    RESULT.write_text(json.dumps({"sizes": rows, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
