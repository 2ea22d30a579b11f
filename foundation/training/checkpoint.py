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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from foundation.errors import CheckpointError, DataError
from foundation.files.hashing import sha256_of
from foundation.files.identity import refuse_another

MANIFEST = "checkpoint.json"
POSITION = "position.json"


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        step: Steps done.
        samples_seen: Records consumed by all processes.
        bad_steps: Non-finite steps in a row, so far.
        identity: What must be the same when the run goes on, by name; see `pretrain.identity`.
    """

    step: int
    samples_seen: int
    bad_steps: int
    identity: dict[str, str]


@dataclass(frozen=True)
class State:
    """What changes while a run trains.

    Attributes:
        module: The model and its objectives.
        optimiser: Of its parameters.
        average: A moving average of the module, if the run keeps one.
    """

    module: Any
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None

    @property
    def best(self) -> Any:
        """What is evaluated and published: the average, if there is one."""
        return self.module if self.average is None else self.average.module

    def _modules(self) -> dict[str, nn.Module]:
        """By the name of their file."""
        modules: dict[str, nn.Module] = {"module": self.module}
        return modules if self.average is None else {**modules, "average": self.average}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """By the name of their file."""
        return {name: module.state_dict() for name, module in self._modules().items()} | {
            "training": _flatten(self.optimiser) | _random_state()
        }

    def load(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Take over what `tensors` gave."""
        for name, module in self._modules().items():
            module.load_state_dict(tensors[name])
        _set_random_state(tensors["training"])
        _unflatten(tensors["training"], self.optimiser)


def save(folder: Path, position: Position, state: State, keep: int) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`.

    Returns:
        The folder of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{position.step:08d}"
    partial = folder / f".partial-{position.step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, tensors in state.tensors().items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial / f"{name}.safetensors")
    (partial / POSITION).write_text(json.dumps(vars(position)))
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


def restore(folder: Path, identity: dict[str, str], state: State) -> tuple[Position | None, list[str]]:
    """Load the newest checkpoint that is whole.

    Args:
        folder: Of the checkpoints.
        identity: What this run is; see `Position`.
        state: Receives what was saved.

    Returns:
        The position, None where there is no checkpoint; and what was wrong with newer ones.

    Raises:
        CheckpointError: There are checkpoints and none is whole, or they belong to another run.
    """
    problems = []
    for path in reversed(_complete(folder)):
        try:
            position, tensors = _read(path)
        except _DamageError as damage:
            problems.append(f"{path.name}: {damage}")
            continue
        refuse_another(position.identity, identity, path)
        state.load(tensors)
        return position, problems
    if problems:
        raise CheckpointError(
            f"no checkpoint is whole; {'; '.join(problems)}", where=str(folder), fix="remove the folder to start again"
        )
    return None, []


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


class _DamageError(Exception):
    """Why a checkpoint is not used."""


def _read(path: Path) -> tuple[Position, dict[str, dict[str, Tensor]]]:
    """A checkpoint whose every file is what it was when it was written.

    Raises:
        _DamageError: It is not whole.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, digest in manifest["files"].items():
            if sha256_of(path / name) != digest:
                raise _DamageError(f"{name} is damaged")
        position = Position(**json.loads((path / POSITION).read_text()))
        names = [name for name in manifest["files"] if name != POSITION]
        # Whatever else a file of that name may be, it is only ever read as numbers.
        return position, {Path(name).stem: load_file(path / name) for name in names}
    except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise _DamageError(f"cannot be read ({type(error).__name__})") from None


def _random_state() -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    return state | ({"random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


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
        if number.isdecimal():
            state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
