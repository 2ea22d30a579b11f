"""The training step against a bare loop, and against the rate at which this machine multiplies matrices.

Run `python benchmarks/bench_step.py`. The loop of `chiasma pretrain`, which loads, logs and checks for trouble, and a
hand-written one with the same model, objectives and batches, the batches already in memory, take turns on a simulated
cohort; ratios are taken turn by turn. On a processor all is one thread and seconds of processor time; with `--device
cuda` it is seconds of the clock. Operations are counted by torch's counter in one real step of each batch.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import PatientOrder
from foundation.data.scaling import fit_preprocessing
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.progress import Silent
from foundation.simulation.simulate import simulate
from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.optimiser import build_optimiser
from foundation.training.parallel.base import Parallel
from foundation.training.parallel.replicated import Replicated
from foundation.training.update import Updater
from pretrain.config import PretrainConfig
from pretrain.drawing import Drawing
from pretrain.engine import Run, train
from pretrain.monitor import Monitor
from pretrain.step import Pretraining

RESULT = Path(__file__).parent / "results" / "step.json"
TINY = Path(__file__).parents[1] / "configs" / "pretrain" / "tiny.yaml"
NEVER = 10**9


def sized(model: str, width: int, heads: int, depth: int) -> dict[str, Any]:
    """A ViT on eight slices of 30 patches, and omics of the same width; bfloat16."""
    return {
        "towers": {
            "mri": {"tower": "vit2d", "model": model, "arguments": {"patch_size": 8}, "max_slices": 8},
            "omics": {
                "tower": "omics_transformer",
                "tokenizer": {"tokenizer": "chunk", "size": 16},
                "width": width,
                "depth": depth,
                "heads": heads,
            },
        },
        "batch_size": 128 if torch.cuda.is_available() else 8,
        "precision": "bfloat16",
    }


MODELS = {
    "tiny": {},
    "vit-s": sized("vit_small_patch16_224", 384, 6, 6),
    "vit-b": sized("vit_base_patch16_224", 768, 12, 12),
    "vit-l": sized("vit_large_patch16_224", 1024, 16, 12),
}
"""What differs from tiny.yaml."""


def config_of(name: str, batch_size: int | None) -> PretrainConfig:
    """A config that trains without a pause: no checkpoint but the last, no evaluation."""
    import yaml

    document = {**yaml.safe_load(TINY.read_text(encoding="utf-8")), **MODELS[name], "checkpoint_every": NEVER}
    if batch_size:
        document["batch_size"] = batch_size
    return PretrainConfig.model_validate(document)


class Stopwatch(Monitor):
    """Notes when each step was logged, on the clock that it is given."""

    def __init__(self, path: Path, steps: int, clock: Callable[[], float]) -> None:
        super().__init__(path, step=0, steps=steps)
        self.clock = clock
        self.times: list[float] = []

    def log(self, row: Any) -> None:
        """Log, and note the time after it."""
        super().log(row)
        self.times.append(self.clock())


def simulated(folder: Path, patients: int) -> Aligned:
    """A cohort of the benchmark's own."""
    simulate(folder / "source", patients=patients, seed=0, progress=lambda done, total: None)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    cohort = PreparedCohort(folder / "cohort")
    return align(fit_preprocessing(cohort, np.arange(len(cohort))), cohort)


class Bench:
    """One model on one device, trained by the engine and by a bare loop in turn.

    Args:
        aligned: The cohort.
        config: Of the run.
        device: `cpu` or `cuda`.
        folder: For what the engine writes.
        steps: Of one turn.
    """

    def __init__(self, aligned: Aligned, config: PretrainConfig, device: str, folder: Path, steps: int) -> None:
        config = config.model_copy(update={"out": folder})
        self.config, self.folder, self.steps = config, folder, steps
        self.parallel = Replicated(config.precision, torch.device(device))
        self.on_gpu = device == "cuda"
        torch.manual_seed(0)
        settings = MultimodalConfig.of(aligned.preprocessing.described(), config.towers, config.fusion, config.width)
        self.module = Pretraining.of(config, MultimodalModel(settings)).to(self.parallel.device).train()
        self.bare_module = copy.deepcopy(self.module)
        self.bare_optimiser = build_optimiser(self.bare_module, config.optimiser)
        rows = np.arange(len(aligned.cohort))
        self.dataset = CohortDataset(aligned, rows, seed=0, dropout=config.dropout)
        self.drawing = Drawing.of(config, aligned, rows, self.module.objectives.values())  # type: ignore[arg-type]
        order = PatientOrder(rows, config.batch_size, seed=0, batches=steps)
        self.batches = [batch.to(self.parallel.device) for batch in load(self.dataset, order)]

    def clock(self) -> float:
        """Seconds, after all work is done."""
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def engine(self) -> tuple[list[float], list[float]]:
        """Seconds of each step of `pretrain.engine` from log to log, and the share of each that waited for data.

        One more step than asked for, as the first has no log before it.
        """
        watch = self.train(self.parallel, self.folder)
        waiting = [row["waiting"] for row in watch.rows() if row["split"] == "train"][-self.steps :]
        return np.diff(watch.times).tolist(), waiting

    def train(self, parallel: Parallel, checkpoints: Path) -> Stopwatch:
        """Train from the beginning, by the engine; the times of its steps.

        Args:
            parallel: How processes share the work.
            checkpoints: Where they go; the same folder for all who write one together.
        """
        watch = Stopwatch(self.config.out / "metrics.jsonl", self.steps + 1, self.clock)
        run = Run(
            config=self.config,
            steps=self.steps + 1,
            dataset=self.dataset,
            drawing=self.drawing,
            pretraining=self.module,
            state=State(Updater(self.module, self.config.optimiser, parallel, ema=None)),
            parallel=parallel,
            checkpoints=Checkpoints(checkpoints / "checkpoints", keep=1),
            monitor=watch,
            evaluate=dict,
        )
        train(run, Position(0, 0, 0, {}))
        return watch

    def bare(self) -> list[float]:
        """Seconds of each step of a loop that does what has to be done and nothing else."""
        module, optimiser, seconds = self.bare_module, self.bare_optimiser, []
        for batch in self.batches:
            start = self.clock()
            optimiser.zero_grad(set_to_none=True)
            self.losses(module, batch).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), self.config.optimiser.clip)
            optimiser.step()
            seconds.append(self.clock() - start)
        return seconds

    def losses(self, module: Pretraining, batch: Batch) -> torch.Tensor:
        """The weighted sum of all losses."""
        total = torch.zeros((), device=batch.device)
        with self.parallel.autocast():
            outputs = module.model(batch, module.views(batch), seed=0)
            for name, objective in module.objectives.items():
                own = {view: output for (asked_by, view), output in outputs.items() if asked_by == name}
                total = total + module.weights[name] * objective(own, batch).value
        return total

    def operations(self) -> float:
        """Of a step, the mean over all batches, forward and backward."""
        counted = []
        for batch in self.batches:
            with FlopCounterMode(display=False) as counter:
                self.losses(self.bare_module, batch).backward()
            counted.append(counter.get_total_flops())
        return statistics.fmean(counted)

    def matrix_rate(self) -> float:
        """Operations per second of a large matrix product in the precision of the config."""
        side, times = (8192, 20) if self.on_gpu else (2048, 4)
        kind = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32
        a, b = torch.randn(2, side, side, device=self.parallel.device).to(kind)
        a @ b
        start = self.clock()
        for _ in range(times):
            a @ b
        return 2 * side**3 * times / (self.clock() - start)


def measure(bench: Bench, turns: int) -> dict[str, Any]:
    """Medians over turns of seconds, ratio, share of the matrix rate and share of waiting."""
    operations = bench.operations()
    bench.engine()
    bench.bare()
    rows, waiting = [], []
    for _ in range(turns):
        rate = bench.matrix_rate()
        engine, waited = bench.engine()
        engine_s, bare_s = statistics.median(engine), statistics.median(bench.bare())
        waiting += waited
        rows.append(
            (engine_s, bare_s, engine_s / bare_s, rate, operations / engine_s / rate, operations / bare_s / rate)
        )
    engine_s, bare_s, ratio, rate, share, bare_share = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "precision": bench.config.precision,
        "batch_size": bench.config.batch_size,
        "gflop_per_step": round(operations / 1e9, 2),
        "seconds": {"engine": round(engine_s, 5), "bare": round(bare_s, 5)},
        "ratio_to_bare": round(ratio, 3),
        "ratio_of_each_turn": [round(row[2], 3) for row in rows],
        "matrix_gflop_per_second": round(rate / 1e9, 1),
        "share_of_matrix_rate": {"engine": round(share, 3), "bare": round(bare_share, 3)},
        "waiting": round(statistics.median(waiting), 4),
    }


def main() -> None:
    """Measure, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, help="tiny and vit-s; with CUDA all")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="cuda where there is one")
    parser.add_argument("--patients", type=int, default=64)
    parser.add_argument("--batch-size", type=int, help="that of each model by default")
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        aligned = simulated(folder, arguments.patients)
        for model in arguments.models or (MODELS if device == "cuda" else ["tiny", "vit-s"]):
            (folder / model).mkdir()
            config = config_of(model, arguments.batch_size)
            results[model] = measure(Bench(aligned, config, device, folder / model, arguments.steps), arguments.turns)
            print(
                f"{model}: {results[model]['ratio_to_bare']} x the bare loop (aim 1.05), "
                f"{results[model]['share_of_matrix_rate']['engine']} of the matrix rate (aim 0.6), "
                f"{results[model]['waiting']:.1%} waiting for data (aim 2 %)",
                flush=True,
            )
    machine = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    # Each device keeps its own results.
    document = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    document[device] = {"results": results, "machine": machine}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
