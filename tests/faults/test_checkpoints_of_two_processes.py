"""Two processes that write one checkpoint: killed, short of room, or with a damaged one, they lose nothing."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException

from foundation.errors import ChiasmaError
from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.sharded import Sharded
from foundation.training.update import Updater
from pretrain.step import Logged, Step
from tests.distributed.batches import make_batch, make_module, single
from tests.faults.test_checkpoint_killed_while_written import kill_before
from tests.processes import run_in_processes

pytestmark = pytest.mark.timeout(600)
IDENTITY = {"seed": "3"}
CALLS = {0: (1, 9, 20, 26), 1: (1, 7)}
"""By rank, before which calls of `POINTS` it is killed; one process alone is killed before each of them."""


def make() -> State:
    """A state of which each process has its own parts, after one step."""
    module = make_module(["masked_omics"]).float()
    state = State(Updater(module, OptimiserConfig(warm_up=0.0), Sharded(device=torch.device("cpu")), ema=0.9))
    batch = single(make_batch()).part(32 * dist.get_rank(), 32 * dist.get_rank() + 32)
    state.updater.update(Step(module).losses(batch, Logged()), 0, 1)
    return state


def meet(rank: int, folder: str) -> None:
    """Begin a group of two."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def save(rank: int, folder: str, steps: list[int], call: int, victim: int, room: int | None) -> None:
    """Save checkpoints; in the last one a process is killed before a call, or has no room for its files."""
    meet(rank, folder)
    state, checkpoints = make(), Checkpoints(Path(folder) / "checkpoints", keep=1)
    for step in steps:
        if step == steps[-1] and rank == victim:
            if call:
                kill_before(call)
            if room is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            checkpoints.save(Position(step, 8 * step, 0, IDENTITY), state)
            checkpoints.finish()
        except (OSError, ChiasmaError) as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            Path(folder, f"{rank}.txt").write_text(str(error))
    os._exit(0)


def restore(rank: int, folder: str) -> None:
    """Restore, and note where both are."""
    meet(rank, folder)
    state = make()
    found, problems = Checkpoints(Path(folder) / "checkpoints", keep=1).restore(IDENTITY, state)
    Path(folder, f"restored-{rank}.txt").write_text(f"{found and found.step} {problems}")
    os._exit(0)


def restored(folder: Path) -> str:
    """What both say alike."""
    (folder / "meet").unlink(missing_ok=True)
    run_in_processes(restore, (str(folder),), 2)
    first, second = ((folder / f"restored-{rank}.txt").read_text() for rank in range(2))
    assert first == second
    return first


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 1 and 2, of which one is kept."""
    folder = tmp_path_factory.mktemp("two")
    run_in_processes(save, (str(folder), [1], 0, 0, None), 2)
    return folder


@pytest.mark.parametrize(("victim", "call"), [(rank, call) for rank, calls in CALLS.items() for call in calls])
def test_killed_while_both_write_the_one_before_or_the_new_one_is_whole(two, tmp_path, victim, call):
    shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        run_in_processes(save, (str(tmp_path), [2], call, victim, None), 2)
    assert restored(tmp_path) in ("1 []", "2 []")


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_has_no_room_both_end_and_the_one_before_stays(two, tmp_path, victim):
    shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")
    run_in_processes(save, (str(tmp_path), [2], 0, victim, 100), 2)
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert "File too large" in told[victim] and "process" not in told[victim]
    assert told[1 - victim].startswith(f"process {victim} could not write its part: OSError(27, 'File too large')")
    assert restored(tmp_path) == "1 []"


def test_a_damaged_one_is_passed_over_by_both(two, tmp_path):
    checkpoints = shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")
    newer = shutil.copytree(checkpoints / "step-00000001", checkpoints / "step-00000002")
    damaged = sorted((newer / "module").iterdir())[-1]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    told = restored(tmp_path)
    assert told.startswith("1 ") and f"step-00000002: module/{damaged.name} is damaged" in told
