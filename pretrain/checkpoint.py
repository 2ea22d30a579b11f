"""Checkpoints: complete or invisible, checked by hash, only safetensors and JSON; the last good one is never lost.

A checkpoint is written to a hidden folder, synchronised to disk, and renamed into place; only then are older ones
deleted. ``checkpoint.json`` inside names every file with its SHA-256. What other processes will add to a checkpoint
goes into files of their own beside these, under the same manifest.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation.cohort.staging import sha256_of
from foundation.errors import CheckpointError, DataError

MANIFEST = "checkpoint.json"


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        step: Steps done.
        samples_seen: Records consumed by all processes.
        bad_steps: Non-finite steps in a row, so far.
        identity: What must be the same when the run goes on: the config, the cohort, the training patients.
    """

    step: int
    samples_seen: int
    bad_steps: int
    identity: dict[str, str]


def save(folder: Path, position: Position, module: nn.Module, optimiser: torch.optim.Optimizer, keep: int) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`.

    Returns:
        The folder of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{position.step:08d}"
    partial = folder / f".partial-{position.step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, partial / "module.safetensors")
    tensors = _flatten(optimiser)
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, partial / "training.safetensors")
    (partial / "training.json").write_text(json.dumps({"position": vars(position)}))
    files = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps({"format_version": 1, "files": files}, indent=2))
    for path in partial.iterdir():
        _synchronise(path)
    _synchronise(partial)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _synchronise(folder)
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def restore(
    folder: Path, identity: dict[str, str], module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Position | None, list[str]]:
    """Load the newest checkpoint that is whole.

    Args:
        folder: Of the checkpoints.
        identity: What this run is; see `Position`.
        module: Receives the weights.
        optimiser: Receives its state.

    Returns:
        The position, None where there is no checkpoint; and what was wrong with newer ones.

    Raises:
        CheckpointError: There are checkpoints and none is whole, or they belong to another run.
    """
    problems = []
    for path in reversed(_complete(folder)):
        problem = _damage(path)
        if problem:
            problems.append(f"{path.name}: {problem}")
            continue
        document = json.loads((path / "training.json").read_text())
        position = Position(**document["position"])
        _refuse_another_run(path, position.identity, identity)
        module.load_state_dict(load_file(path / "module.safetensors"))
        tensors = load_file(path / "training.safetensors")
        torch.set_rng_state(tensors.pop("random.cpu"))
        cuda = tensors.pop("random.cuda", None)
        if cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda)
        _unflatten(tensors, optimiser)
        return position, problems
    if problems:
        raise CheckpointError(
            f"no checkpoint is whole; {'; '.join(problems)}", where=str(folder), fix="remove the folder to start again"
        )
    return None, []


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint; empty if nothing is."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, digest in manifest["files"].items():
            if sha256_of(path / name) != digest:
                return f"{name} is damaged"
    except (DataError, OSError, ValueError, KeyError, AttributeError) as error:
        return f"cannot be read ({type(error).__name__})"
    return ""


def _refuse_another_run(path: Path, theirs: dict[str, str], ours: dict[str, str]) -> None:
    changed = [key for key in ours if theirs.get(key) != ours[key]]
    if changed:
        raise CheckpointError(
            f"belongs to another run: the {' and the '.join(changed)} changed since",
            where=str(path),
            fix="undo the change to go on, or give the new run another `out`",
        )


def _flatten(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors by name; its groups follow from the config, and their rates from the step."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value.contiguous() for number, entries in state.items() for name, value in entries.items()
    }


def _unflatten(tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
