"""Checkpoints of a run, its position and identity: complete or invisible, checked by hash; the last good one stays.

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
from torch import Tensor

from foundation.errors import CheckpointError, DataError
from foundation.files.hashing import sha256_of
from foundation.files.identity import refuse_another
from foundation.training.update import Updater

FORMAT = 2
"""Of a checkpoint: in 2 the optimiser is kept by the names of parameters."""

MANIFEST = "checkpoint.json"
POSITION = "position.json"


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        step: Steps done.
        samples_seen: Records consumed by all processes.
        bad_steps: Non-finite steps in a row, so far.
        identity: What must be the same when the run goes on, by name.
    """

    step: int
    samples_seen: int
    bad_steps: int
    identity: dict[str, str]


@dataclass(frozen=True)
class State:
    """What changes while a run trains, as tensors by name.

    Attributes:
        updater: The module that is trained, its optimiser, and the average of its parameters if there is one.
    """

    updater: Updater

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """By the name of their file, and there by the name of the parameter that they belong to."""
        average = self.updater.average
        return {
            "module": self.updater.module.state_dict(),
            "optimiser": _moments(self.updater),
            "random": _random_state(),
            **({} if average is None else {"average": average.state_dict()}),
        }

    def load(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Take over what `tensors` gave."""
        self.updater.module.load_state_dict(tensors["module"])
        if self.updater.average is not None:
            self.updater.average.load_state_dict(tensors["average"])
        _set_moments(self.updater, tensors["optimiser"])
        _set_random_state(tensors["random"])


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
    (partial / MANIFEST).write_text(json.dumps({"format_version": FORMAT, "files": files}, indent=2))
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
        _refuse_another_format(path, manifest["format_version"])
        for name, digest in manifest["files"].items():
            if sha256_of(path / name) != digest:
                raise _DamageError(f"{name} is damaged")
        position = Position(**json.loads((path / POSITION).read_text()))
        names = [name for name in manifest["files"] if name != POSITION]
        # Whatever else a file of that name may be, it is only ever read as numbers.
        return position, {Path(name).stem: load_file(path / name) for name in names}
    except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise _DamageError(f"cannot be read ({type(error).__name__})") from None


def _refuse_another_format(path: Path, found: Any) -> None:
    if found != FORMAT:
        raise CheckpointError(
            f"is of format {found}, written by {'an earlier' if found < FORMAT else 'a later'} version of chiasma",
            where=str(path),
            fix="finish the run with the version that began it, or start it anew in another `out`",
        )


def _random_state() -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    return state | ({"random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _moments(updater: Updater) -> dict[str, Tensor]:
    """The optimiser's state as ``parameter/moment``; its groups follow from the config, their rates from the step."""
    return {
        f"{name}/{moment}": value
        for name, parameter in updater.module.named_parameters()
        for moment, value in updater.optimiser.state.get(parameter, {}).items()
    }


def _set_moments(updater: Updater, tensors: dict[str, Tensor]) -> None:
    parameters = dict(updater.module.named_parameters())
    updater.optimiser.state.clear()
    for key, value in tensors.items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[name]
        # As torch keeps it: what is as large as the parameter lies beside it.
        updater.optimiser.state[parameter][moment] = value.to(parameter.device)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
