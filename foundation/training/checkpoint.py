"""Checkpoints of a run, its position and identity: complete or invisible, checked by hash; the last good one stays.

Each process writes its own parts of what all hold together, in the background, to a hidden folder. When the files of
all are on the disk, the first process writes ``checkpoint.json``, which names every file with its SHA-256, renames the
folder into place, and only then deletes older ones. Parts are written and read by torch's distributed checkpoint, as
safetensors, so that a run may go on with another number of processes or another strategy.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from foundation.collectives import of_first, rank, world_size
from foundation.errors import CheckpointError, DataError
from foundation.files.hashing import sha256_of
from foundation.files.identity import refuse_another
from foundation.training.update import Updater

FORMAT = 3
"""Of a checkpoint: in 3 every process writes its own parts."""

MANIFEST = "checkpoint.json"
POSITION = "position.json"
SHARD = "shard-{:05d}"
"""How the name of a file begins that a process wrote, counted from 1; as torch names them."""

RANDOM = "random"
"""Folder with the random numbers' state of each process."""


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
        """By the name of their folder, and there by the name of the parameter that they belong to."""
        updater = self.updater
        average = {} if updater.average is None else {"average": updater.average.state_dict()}
        return {**updater.parallel.state(updater.module, updater.optimiser), **average}

    def load(self, fill: Callable[[dict[str, dict[str, Tensor]]], None]) -> None:
        """Take over what `tensors` gave.

        Args:
            fill: Writes what was kept into such tensors.
        """
        updater = self.updater
        updater.parallel.load(updater.module, updater.optimiser, fill)
        if updater.average is not None:
            fill({"average": updater.average.state_dict()})


class Checkpoints:
    """The checkpoints of a run; every process has one of these and calls the same methods.

    Args:
        folder: Of all checkpoints.
        keep: How many stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        # What is written in the background must not meet the collectives of training.
        self.group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._writing: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, position: Position, state: State) -> float:
        """Begin to write a checkpoint; what may change meanwhile is copied first.

        Returns:
            Seconds for which training had to wait.

        Raises:
            OSError, CheckpointError: The one before it could not be written.
        """
        began = time.perf_counter()
        self.finish()
        if rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        copied = {name: {key: _copied(value) for key, value in part.items()} for name, part in state.tensors().items()}
        random = _random_state()
        self._writing = threading.Thread(target=self._write, args=(position, copied, random), name="checkpoint")
        self._writing.start()
        return time.perf_counter() - began

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is whole.

        Raises:
            OSError, CheckpointError: It could not be.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Whatever ends this, what is being written is then whole; of two errors the one that ended it is told."""
        try:
            yield
        finally:
            if self._writing is not None:
                self._writing.join()

    def _write(self, position: Position, tensors: dict[str, dict[str, Tensor]], random: dict[str, Tensor]) -> None:
        partial = self.folder / f".partial-{position.step:08d}"
        try:
            self._together(lambda: _begin(partial) if rank() == 0 else None)
            written = self._together(lambda: self._write_parts(partial, tensors, random))
            files = {name: digest for part in written for name, digest in part.items()}
            self._together(lambda: self._publish(partial, position, files) if rank() == 0 else None)
        except BaseException as error:
            self._failure = error

    def _together(self, work: Callable[[], Any]) -> list[Any]:
        """What the work of each process gives, in the order of ranks; where one fails, all do.

        Raises:
            OSError, CheckpointError: What failed here, or that another process failed.
        """
        done, failure = None, None
        try:
            done = work()
        except Exception as error:
            failure = error
        told = self._everyones((done, None if failure is None else repr(failure)))
        if failure is not None:
            raise failure
        for number, (_, error) in enumerate(told):
            if error is not None:
                raise CheckpointError(f"process {number} could not write its part: {error}")
        return [each for each, _ in told]

    def _everyones(self, value: Any) -> list[Any]:
        if self.group is None:
            return [value]
        values: list[Any] = [None] * world_size()
        dist.all_gather_object(values, value, group=self.group)
        return values

    def _write_parts(
        self, partial: Path, tensors: dict[str, dict[str, Tensor]], random: dict[str, Tensor]
    ) -> dict[str, str]:
        """Write what this process has; names and hashes of its files."""
        for name, part in tensors.items():
            if self.group is None:
                (partial / name).mkdir()
                save_file(part, partial / name / f"{SHARD.format(1)}-model-00001-of-00001.safetensors")
            else:
                writer = HuggingFaceStorageWriter(str(partial / name), save_distributed=True)
                with _own_failure():
                    save(part, storage_writer=writer, process_group=self.group)
        (partial / RANDOM).mkdir(exist_ok=True)
        save_file(random, partial / RANDOM / f"{rank():05d}.safetensors")
        own = [partial / RANDOM / f"{rank():05d}.safetensors"]
        for name in tensors:
            own += (partial / name).glob(f"{SHARD.format(rank() + 1)}-*.safetensors")
        for path in own:
            _synchronise(path)
        return {str(path.relative_to(partial)): sha256_of(path) for path in own}

    def _publish(self, partial: Path, position: Position, files: dict[str, str]) -> None:
        """Make a checkpoint visible whose every file is on the disk; then delete old ones."""
        (partial / POSITION).write_text(json.dumps(vars(position)))
        files[POSITION] = sha256_of(partial / POSITION)
        manifest = {"format_version": FORMAT, "files": dict(sorted(files.items()))}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2))
        for path in (partial / POSITION, partial / MANIFEST, *(p for p in partial.iterdir() if p.is_dir()), partial):
            _synchronise(path)
        final = self.folder / f"step-{position.step:08d}"
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _synchronise(self.folder)
        for old in _complete(self.folder)[: -self.keep]:
            shutil.rmtree(old)

    def restore(self, identity: dict[str, str], state: State) -> tuple[Position | None, list[str]]:
        """Load the newest checkpoint that is whole.

        Args:
            identity: What this run is; see `Position`.
            state: Receives what was saved.

        Returns:
            The position, None where there is no checkpoint; and what was wrong with newer ones.

        Raises:
            CheckpointError: There are checkpoints and none is whole, or they belong to another run.
        """
        problems = []
        for name in of_first(lambda: [path.name for path in reversed(_complete(self.folder))]):
            path = self.folder / name
            found = of_first(lambda path=path: _checked(path))
            if isinstance(found, str):
                problems.append(f"{path.name}: {found}")
                continue
            refuse_another(found.identity, identity, path)
            state.load(lambda parts, path=path: _fill(path, parts, self.group))
            own = path / RANDOM / f"{rank():05d}.safetensors"
            if own.is_file():
                _set_random_state(load_file(own))
            return found, problems
        if problems:
            raise CheckpointError(
                f"no checkpoint is whole; {'; '.join(problems)}",
                where=str(self.folder),
                fix="remove the folder to start again",
            )
        return None, []


@contextmanager
def _own_failure() -> Iterator[None]:
    """What failed on this process itself in place of torch's list of what failed on which."""
    try:
        yield
    except CheckpointException as error:
        number, (failure, _) = min(error.failures.items(), key=lambda item: item[0] != rank())
        if number == rank() and isinstance(failure, Exception):
            raise failure from None
        raise CheckpointError(f"process {number} could not write its part: {failure!r}") from None


def _begin(partial: Path) -> None:
    """A hidden folder with nothing in it."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _copied(value: Tensor) -> Tensor:
    """The same values on the processor, in memory of their own."""
    if not isinstance(value, DTensor):
        return value.detach().to("cpu", copy=True)
    mesh = value.device_mesh
    if mesh.device_type != "cpu":
        mesh = init_device_mesh("cpu", tuple(mesh.shape))
    own = value.to_local().detach().to("cpu", copy=True)
    return DTensor.from_local(own, mesh, value.placements, shape=value.shape, stride=value.stride())


def _checked(path: Path) -> Position | str:
    """The position of a checkpoint whose every file is what it was when it was written; else what is wrong.

    Raises:
        CheckpointError: It is of another format.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        _refuse_another_format(path, manifest["format_version"])
        for name, digest in manifest["files"].items():
            if sha256_of(path / name) != digest:
                return f"{name} is damaged"
            if name != POSITION:
                # Whatever else a file of that name may be, it is only ever read as numbers.
                with safe_open(path / name, framework="pt"):
                    pass
        return Position(**json.loads((path / POSITION).read_text()))
    except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        return f"cannot be read ({type(error).__name__})"


def _fill(path: Path, parts: dict[str, dict[str, Tensor]], group: Any) -> None:
    """Write what a checkpoint keeps into tensors, each process its own parts."""
    for name, tensors in parts.items():
        reader = HuggingFaceStorageReader(str(path / name))
        with warnings.catch_warnings():
            # Of one process it says that it is one.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)


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


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
