"""A process that is killed at any point of writing a checkpoint leaves the one before it, or the new one, whole."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foundation.training import checkpoint
from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.replicated import Replicated
from foundation.training.update import Updater

CPU = torch.device("cpu")
IDENTITY = {"seed": "3"}
POINTS = [
    (os, "fsync"),
    (os, "open"),
    (checkpoint, "save_file"),
    (checkpoint, "sha256_of"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "write_text"),
    (shutil, "rmtree"),
]
"""What writing a checkpoint does to the disk; a process is killed before each call of each."""


def make(step: int) -> State:
    """A state that tells which step it is of."""
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.fill_(step), module.bias.fill_(step)
    updater = Updater(module, OptimiserConfig(warm_up=0.0), Replicated(device=CPU), ema=0.9)
    updater.update([module(torch.ones(1, 3)).sum() * 0], 0, 1)
    return State(updater)


def save(folder: Path, step: int) -> None:
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(Position(step, 8 * step, 0, IDENTITY), make(step))
    checkpoints.finish()


def kill_before(call: int) -> None:
    """Have this process killed before a call of any of `POINTS`."""
    left = call

    def deadly(original: Any) -> Any:
        def killing(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return killing

    for place, name in POINTS:
        setattr(place, name, deadly(getattr(place, name)))


def killed_at(folder: Path, call: int) -> bool:
    """Save in another process that is killed before a call of any of `POINTS`; False where there are fewer calls."""
    child = os.fork()
    if child == 0:
        kill_before(call)
        try:
            save(folder, 2)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


def test_the_one_before_or_the_new_one_is_whole_at_every_point(tmp_path):
    save(tmp_path / "first", 1)
    found = []
    for call in range(1, 200):
        folder = Path(shutil.copytree(tmp_path / "first", tmp_path / str(call)))
        if not killed_at(folder, call):
            break
        state = make(9)
        position, problems = Checkpoints(folder, keep=1).restore(IDENTITY, state)
        assert position is not None and not problems
        weights = state.tensors()["module"]["weight"]
        assert torch.allclose(weights, torch.full_like(weights, position.step), atol=0.01)
        found.append(position.step)
        save(folder, 3)
        assert [path.name for path in sorted(folder.glob("step-*"))] == ["step-00000003"]
    else:
        pytest.fail("writing a checkpoint never ends")
    # Most points lie before the new one is visible, and one, the removal of the old one, after it.
    assert len(found) > 15 and found == sorted(found) and set(found) == {1, 2}
