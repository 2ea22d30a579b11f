"""Time of a step's random masks, against other ways of drawing them and against the step.

Run `python benchmarks/bench_draws.py`. One thread, seconds of processor time. A mask says of each feature of each
record whether a view hides it. `hash`, 8 bytes of SHAKE per feature and record, is what chiasma drew with before;
`philox` has its key set for each record, and makes no more words than decide nearly every comparison, as `chosen` does.
`--step` adds forward and backward of one omics tower on one view of a part of the batch, times the number of such
parts: the least that a step with any number of views does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundation.randomness import chosen, draw

RESULT = Path(__file__).parent / "results" / "draws.json"
PROBABILITY = 0.3
EPOCH = 3


def seconds(function: Callable[[], object], turns: int) -> float:
    """Median processor time, the first call left out."""
    function()
    found = []
    for _ in range(turns):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return statistics.median(found)


def key(purpose: str, record: str) -> bytes:
    """What is hashed."""
    return f"0\x1f{purpose}\x1f{EPOCH}\x1f{record}".encode()


def by_hash(purpose: str, records: Sequence[str], count: int) -> np.ndarray:
    """Eight bytes of SHAKE for each draw."""
    digests = b"".join(hashlib.shake_128(key(purpose, record)).digest(8 * count) for record in records)
    return (np.frombuffer(digests, dtype="<u8") >> 11).reshape(-1, count) * 2.0**-53 < PROBABILITY


def by_philox(purpose: str, records: Sequence[str], count: int) -> np.ndarray:
    """Sixteen bits of Philox for each draw."""
    stream = np.random.Philox(key=0)
    state = stream.state
    below = np.empty((len(records), count), dtype=bool)
    for row, record in zip(below, records, strict=True):
        state["state"]["key"] = np.frombuffer(hashlib.shake_128(key(purpose, record)).digest(16), dtype="<u8")
        stream.state = state
        np.less(stream.random_raw(-(-count // 4)).view("<u2")[:count], int(PROBABILITY * 2**16), out=row)
    return below


def step_seconds(features: int, records: int, chunk: int, precision: str, turns: int) -> float:
    """Forward and backward of a tower of width 256 and depth 4 on complete records."""
    import torch

    from foundation.modality import OmicsModality
    from foundation.model.tokenizers.chunk import ChunkConfig
    from foundation.model.towers.omics_transformer import OmicsTransformer, OmicsTransformerConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = OmicsTransformerConfig(tokenizer=ChunkConfig(size=chunk), width=256, depth=4)
    tower = OmicsTransformer(
        config, {"rna": OmicsModality(features=list(map(str, range(features))), values="continuous")}
    ).train()
    omics = {"rna": torch.randn(records, features)}
    observed = {"rna": torch.ones(records, features, dtype=torch.bool)}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            pooled_BD = tower(omics, observed).pooled_BD
        pooled_BD.float().square().sum().backward()

    return seconds(step, turns)


def masks(features: int, records: int, views: int, turns: int) -> dict[str, float]:
    """Seconds of a step's masks, in each way of drawing them."""
    keys = [f"TCGA-{number:06d}" for number in range(records)]
    epochs = np.full(records, EPOCH)
    ways: dict[str, Callable[[str], np.ndarray]] = {
        "chosen": lambda purpose: chosen(0, purpose, keys, epochs, features, PROBABILITY),
        "draw": lambda purpose: draw(0, purpose, keys, epochs, features) < PROBABILITY,
        "hash": lambda purpose: by_hash(purpose, keys, features),
        "philox": lambda purpose: by_philox(purpose, keys, features),
    }
    if not (ways["chosen"]("agree") == ways["draw"]("agree")).all():
        raise SystemExit("the two ways of drawing disagree")
    return {
        name: seconds(lambda way=way: [way(f"view {view}") for view in range(views)], turns)
        for name, way in ways.items()
    }


def main() -> None:
    """Measure, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--records", type=int, default=1024)
    parser.add_argument("--views", type=int, default=4, help="masks of a step")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--step", action="store_true", help="measure a step too")
    parser.add_argument("--part", type=int, default=16, help="records of a step that is measured and scaled up")
    parser.add_argument("--chunk", type=int, default=64, help="features of a token")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    features, records, turns = arguments.features, arguments.records, arguments.turns
    times = masks(features, records, arguments.views, turns)
    document: dict[str, Any] = {
        "features": features,
        "records": records,
        "views": arguments.views,
        "seconds": {name: round(found, 4) for name, found in times.items()},
        "ratio_of_chosen_to": {name: round(times["chosen"] / times[name], 3) for name in ("draw", "hash", "philox")},
    }
    print(json.dumps(document), flush=True)
    for precision in ("float32", "bfloat16") if arguments.step else ():
        step = step_seconds(features, arguments.part, arguments.chunk, precision, turns) * records / arguments.part
        shares = {name: round(found / step, 5) for name, found in times.items()}
        document[f"step in {precision}"] = {
            "chunk": arguments.chunk,
            "records_measured": arguments.part,
            "seconds": round(step, 2),
            "share": shares,
        }
        print(f"{precision}: {shares['chosen']:.2%} of a step (aim 1 %), by hash {shares['hash']:.2%}", flush=True)
    document["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "threads": 1,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
