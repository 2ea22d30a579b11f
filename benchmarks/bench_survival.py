"""Cox's likelihood against torchsurv's, and the interval of a C-index against scikit-survival in a loop.

Run `python benchmarks/bench_survival.py`. One process, one thread, seconds of processor time; each pair takes turns,
and the median of the ratios is told. Half of the patients have the event, and no two times are equal, because of equal
ones torchsurv 0.2 makes another likelihood than Efron's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from finetune.tasks.survival_losses import Watched, efron
from foundation.metrics.score import RESAMPLES, with_interval
from foundation.metrics.survival_scores import concordance

RESULT = Path(__file__).parent / "results" / "survival.json"
TURNS = 5
LOOPED = 5
"""Resamples that the loop is timed over; all of them take as many times as long."""


def patients(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risks, times and events."""
    random = np.random.default_rng(0)
    risk = random.standard_normal(count)
    days = 1000 * random.exponential(np.exp(-risk))
    return risk, days, random.random(count) < 0.5


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(ours: Callable[[], object], theirs: Callable[[], object], times: int = 1) -> dict[str, float]:
    """Seconds of each, theirs `times` over, and the ratio."""
    ours(), theirs()
    pairs = [(seconds(ours), times * seconds(theirs)) for _ in range(TURNS)]
    return {
        "seconds": statistics.median(a for a, _ in pairs),
        "seconds_of_other": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def likelihood(count: int) -> dict[str, float]:
    """Loss and gradient."""
    from torchsurv.loss.cox import neg_partial_log_likelihood

    risk, days, happened = (torch.from_numpy(column) for column in patients(count))
    group = torch.zeros(count, dtype=torch.int64)
    values = {}

    def step(name: str, loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
        leaf = risk.clone().requires_grad_()
        value = loss(leaf)
        value.backward()
        values[name] = value.item(), leaf.grad

    found = compare(
        lambda: step("ours", lambda leaf: efron(Watched(leaf, days, happened, group))),
        lambda: step("torchsurv", lambda leaf: neg_partial_log_likelihood(leaf, happened, days, ties_method="efron")),
    )
    (a, slope_a), (b, slope_b) = values["ours"], values["torchsurv"]
    # It computes in single precision.
    if abs(a - b) > 1e-4 or not torch.allclose(slope_a, slope_b.to(slope_a), atol=1e-5):
        raise SystemExit(f"the likelihoods differ: {a} and {b}")
    return found


def interval(count: int) -> dict[str, float]:
    """A C-index with its bootstrap interval."""
    from sksurv.metrics import concordance_index_censored

    risk, days, happened = patients(count)
    random = np.random.default_rng(1)

    def loop() -> None:
        for _ in range(LOOPED):
            rows = random.integers(count, size=count)
            concordance_index_censored(happened[rows], days[rows], risk[rows])

    def ours() -> float:
        score = concordance(risk, days, happened.astype(float), np.full(count, ""))
        return with_interval(score, count, np.random.default_rng(1))[0]

    if abs(ours() - concordance_index_censored(happened, days, risk)[0]) > 1e-9:
        raise SystemExit("the C-indices differ")
    return compare(ours, loop, times=RESAMPLES // LOOPED)


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for count in arguments.patients:
        rows.append({"patients": count, "likelihood": likelihood(count), "c_index_with_interval": interval(count)})
        print(json.dumps(rows[-1]), flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"results": rows, "machine": machine}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
