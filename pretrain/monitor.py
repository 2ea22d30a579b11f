"""The log of a run: metrics.jsonl, one live line on the terminal, and Weights & Biases where asked."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil


class Monitor:
    """Writes one JSON object per logged step, and a line that a person likes to watch.

    Args:
        path: metrics.jsonl; rows after `step` are cut off, so that a resumed run does not tell its steps twice.
        step: The step that the run resumes from.
        steps: Of the whole run.
        wandb: A started Weights & Biases run, or None.
    """

    def __init__(self, path: Path, *, step: int, steps: int, wandb: Any = None) -> None:
        self.path = path
        self.steps = steps
        self.wandb = wandb
        self.started = time.perf_counter()
        self.first = step
        self.shown = 0.0
        self._keep_until(step)

    def _keep_until(self, step: int) -> None:
        rows = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = [row for row in rows if row.endswith("}") and json.loads(row)["step"] <= step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")
        partial.replace(self.path)

    def rows(self) -> list[dict[str, Any]]:
        """Everything logged so far, by earlier starts of the run too."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row; numbers that are not finite are written as null."""
        clean = {key: _number(value) for key, value in row.items()}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(clean) + "\n")
        if self.wandb is not None:
            self.wandb.log({k: v for k, v in clean.items() if isinstance(v, int | float)}, step=clean["step"])

    def show(self, row: Mapping[str, Any], *, last: bool = False) -> None:
        """Renew the live line, at most four times a second; every 10 seconds where nobody watches a terminal."""
        now = time.perf_counter()
        if not last and now - self.shown < (0.25 if sys.stderr.isatty() else 10):
            return
        self.shown = now
        done = row["step"] - self.first
        left = (now - self.started) / max(done, 1) * (self.steps - row["step"])
        memory = psutil.Process(os.getpid()).memory_info().rss / 1e9
        line = (
            f"step {row['step']} of {self.steps} · loss {row['loss']:.4f} · "
            f"{row['samples_per_second']:.0f} samples/s · {int(left) // 60}:{int(left) % 60:02d} left · {memory:.1f} GB"
        )
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def say(self, sentence: str | None) -> None:
        """A line that stays, if there is anything to say."""
        if sentence:
            self.clear()
            print(sentence, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the live line away, so that something else can be shown in its place."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Tell Weights & Biases that this was all."""
        if self.wandb is not None:
            self.wandb.finish()


class Unheard(Monitor):
    """The log of a process that is not the first: another one writes it."""

    def __init__(self) -> None:
        pass

    def log(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def show(self, row: Mapping[str, Any], *, last: bool = False) -> None:
        """Do nothing."""

    def say(self, sentence: str | None) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _number(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, list):
        return [_number(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if value - value == 0 else None
    return value
