"""Weak scaling from one to two processes of a processor, and what is lost on the way; the step against a bare loop.

Run `python benchmarks/bench_ranks.py` on a quiet machine with two cores or more. Two processes of one thread each take
turns at: training their own records each while the other rests (alone); both at once without knowing of each other
(apart); and as two processes of one run (together), by the engine of `chiasma pretrain` and by a loop around torch's
DistributedDataParallel that does what has to be done and nothing else. The records of each process are the same in all
of them, as many as one process has in a run of its own. Seconds are of the clock, ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from bench_step import MODELS, Bench, config_of, simulated
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.batch import Batch
from foundation.data.dataset import load
from foundation.data.scaling import fit_preprocessing
from foundation.training.optimiser import build_optimiser
from foundation.training.parallel.replicated import Replicated
from pretrain.config import PretrainConfig

RESULT = Path(__file__).parent / "results" / "ranks.json"
RANKS = 2


class Part(Replicated):
    """A process that has its part of every batch, whether or not there is another one that has the rest."""

    def __init__(self, config: PretrainConfig, rank: int) -> None:
        super().__init__(config.precision, torch.device("cpu"))
        self.rank, self.world_size = rank, RANKS


class Rank(Bench):
    """What one process does, alone or not; see `Bench`."""

    def __init__(self, folder: Path, config: PretrainConfig, rank: int, steps: int) -> None:
        cohort = PreparedCohort(folder / "cohort")
        aligned = align(fit_preprocessing(cohort, np.arange(len(cohort))), cohort)
        self.own = folder / f"rank-{rank}"
        self.own.mkdir()
        super().__init__(aligned, config, "cpu", folder, steps)
        self.config = config.model_copy(update={"out": self.own})
        self.rank = rank
        order = self.drawing.order(config, batches=steps + 1, rank=rank, world_size=RANKS)
        self.batches = list(load(self.dataset, order))

    def clock(self) -> float:
        """Of the wall."""
        return time.perf_counter()

    def seconds(self) -> list[float]:
        """Of each step of the engine, from log to log."""
        watch = self.train(Part(self.config, self.rank), self.folder if dist.is_initialized() else self.own)
        return np.diff(watch.times).tolist()

    def plain(self) -> list[float]:
        """Seconds of each step of a loop around DistributedDataParallel."""
        module = DistributedDataParallel(WithLosses(self))
        optimiser = build_optimiser(self.bare_module, self.config.optimiser)
        seconds = []
        for batch in self.batches:
            start = self.clock()
            optimiser.zero_grad(set_to_none=True)
            # Losses are sums over processes, and DistributedDataParallel gives means.
            (RANKS * module(batch)).backward()
            nn.utils.clip_grad_norm_(module.parameters(), self.config.optimiser.clip)
            optimiser.step()
            seconds.append(self.clock() - start)
        # Of the engine too, there is no time of the first.
        return seconds[1:]


class WithLosses(nn.Module):
    """A module whose forward pass gives the weighted sum of all losses."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.module = bench.bare_module

    def forward(self, batch: Batch) -> Tensor:
        """Scalar."""
        return self.bench.losses(self.module, batch)


def work(rank: int, folder: Path, config: PretrainConfig, steps: int, turns: int, barrier: Any) -> None:
    """One of two processes: all turns."""
    torch.set_num_threads(1)
    bench = Rank(folder, config, rank, steps)
    rows = []
    for turn in range(turns + 1):
        row: dict[str, Any] = {}
        for number in range(RANKS):
            barrier.wait()
            if number == rank:
                row["alone"] = bench.seconds()
        barrier.wait()
        row["apart"] = bench.seconds()
        barrier.wait()
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{turn}", rank=rank, world_size=RANKS)
        row["together"] = bench.seconds()
        barrier.wait()
        row["bare"] = bench.plain()
        barrier.wait()
        dist.destroy_process_group()
        rows.append(row)
    (folder / f"{rank}.json").write_text(json.dumps(rows))


def measure(folder: Path, config: PretrainConfig, steps: int, turns: int) -> dict[str, Any]:
    """Medians over turns."""
    mp.spawn(work, (folder, config, steps, turns, mp.get_context("spawn").Barrier(RANKS)), nprocs=RANKS)
    told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]
    # The first turn warms up.
    found = [ratios(list(rows)) for rows in list(zip(*told, strict=True))[1:]]
    medians = {key: round(statistics.median(each[key] for each in found), 4) for key in found[0]}
    return {
        **medians,
        "efficiency_of_each_turn": [round(each["efficiency"], 3) for each in found],
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of one turn: seconds of a step, the efficiency and its three factors, and the step over the bare loop."""
    alone, apart, together, bare = (
        np.array([row[key] for row in rows]) for key in ("alone", "apart", "together", "bare")
    )
    longer = apart.max(axis=0).mean()
    return {
        "seconds_alone": alone.mean(),
        "seconds_together": together.mean(),
        "efficiency": alone.mean() / together.mean(),
        "shared_machine": alone.mean() / apart.mean(),
        "unequal_records": apart.mean() / longer,
        "rest": longer / together.mean(),
        "ratio_to_bare": float(together.mean() / bare.mean()),
    }


def main() -> None:
    """Measure, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", choices=MODELS)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[32, 128], help="of each process")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--steps", type=int, default=8, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    results = {}
    for size in arguments.batch_sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            simulated(folder, arguments.patients)
            config = config_of(arguments.model, RANKS * size)
            results[size] = found = measure(folder, config, arguments.steps, arguments.turns)
        print(
            f"{arguments.model}, {size} records a process: efficiency {found['efficiency']} (aim 0.95) = "
            f"{found['shared_machine']} shared machine x {found['unequal_records']} unequal records x {found['rest']} "
            f"the rest; {found['ratio_to_bare']} x the bare loop on {RANKS} processes (aim 1.03)",
            flush=True,
        )
    machine = {
        "device": platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    arguments.out.write_text(
        json.dumps({"model": arguments.model, "by_records_of_a_process": results, "machine": machine}, indent=2) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
