"""Time and peak memory of the contrastive losses, forward and backward, against open_clip's `ClipLoss`.

Run `python benchmarks/bench_contrast.py`. Each measurement is a process of its own with one thread, in seconds of
processor time and megabytes above what the process held before it made the embeddings, so with them and their
gradients. `ClipLoss` is left out where its scores would not fit the memory that is free.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "contrast.json"
MATRICES_OF_CLIP = 4
"""Of batch x batch float32 that `ClipLoss` holds at its peak, as measured; to tell whether it would fit."""


def resident(field: str) -> float:
    """Megabytes of this process: `VmRSS` now, or `VmHWM` at most since the last reset."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1e3


def measure(name: str, batch: int, width: int, turns: int) -> dict:
    """Seconds per turn, the most memory, and the loss, of one loss on complete pairs, in this process."""
    import torch

    from foundation.objectives.contrastive.contrast import infonce, siglip

    torch.set_num_threads(1)
    make = torch.Generator().manual_seed(0)
    scale, bias = torch.tensor(14.0, requires_grad=True), torch.tensor(-10.0, requires_grad=True)

    def step(a: torch.Tensor, b: torch.Tensor) -> float:
        here, patients = torch.ones(len(a), dtype=torch.bool), torch.arange(len(a))
        if name == "infonce":
            value = infonce(a, b, here, here, patients, scale).value
        elif name == "siglip":
            value = siglip(a, b, here, here, patients, scale, bias).value
        else:
            value = clip(a, b, scale)
        value.backward()
        return value.item()

    clip = clip_loss() if name == "clip" else None
    step(*torch.randn(2, 64, width, generator=make).requires_grad_())
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    sides = [torch.nn.functional.normalize(torch.randn(batch, width, generator=make)) for _ in "ab"]
    seconds, loss = [], 0.0
    for _ in range(turns):
        a, b = (side.detach().requires_grad_() for side in sides)
        start = time.process_time()
        loss = step(a, b)
        seconds.append(time.process_time() - start)
    return {"seconds": statistics.median(seconds), "megabytes": resident("VmHWM") - before, "loss": loss}


def clip_loss():
    from open_clip.loss import ClipLoss

    return ClipLoss()


def in_process(name: str, batch: int, width: int, turns: int) -> dict:
    """The same in a new process, whose memory nothing else has touched."""
    command = [sys.executable, __file__, "--one", name, *map(str, (batch, width, turns))]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(batch: int, width: int) -> dict:
    """All losses at one batch size, and their ratios to `ClipLoss` where it fits."""
    import psutil

    turns = 5 if batch <= 4096 else 1
    fits = MATRICES_OF_CLIP * 4 * batch**2 < 0.7 * psutil.virtual_memory().available
    names = ["infonce", "siglip", *(["clip"] if fits else [])]
    found = {name: in_process(name, batch, width, turns) for name in names}
    row: dict = {"batch": batch}
    for quantity, digits in (("seconds", 4), ("megabytes", 1)):
        row[quantity] = {name: round(values[quantity], digits) for name, values in found.items()}
        if fits:
            of_clip = found["clip"][quantity]
            row[f"{quantity}_ratio_to_clip"] = {n: round(found[n][quantity] / of_clip, 3) for n in names[:2]}
    if fits and abs(found["infonce"]["loss"] - found["clip"]["loss"]) > 1e-4:
        raise SystemExit(f"the losses differ: {found}")
    if not fits:
        row["clip_left_out"] = f"its scores would need about {MATRICES_OF_CLIP * 4 * batch**2 / 1e9:.0f} GB"
    return row


def main() -> None:
    """Measure, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=4, metavar=("LOSS", "BATCH", "WIDTH", "TURNS"), help="measure one, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], *map(int, arguments.one[1:]))))
        return
    rows = []
    for batch in arguments.batches:
        rows.append(compare(batch, arguments.width))
        print(json.dumps(rows[-1]), flush=True)
    import torch

    machine = {
        "processor": platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"width": arguments.width, "results": rows, "machine": machine}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
