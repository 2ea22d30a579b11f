"""Every strategy on one GPU in bfloat16: the steps of plain training, and a run that goes on from its checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.base import Parallel
from foundation.training.parallel.replicated import Replicated
from foundation.training.parallel.strategies import STRATEGIES
from foundation.training.update import Updater
from pretrain.step import Logged, Step
from tests.distributed.batches import make_batch, make_module, single

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DEVICE = torch.device("cuda", 0)
STEPS, STOP = 8, 4
CONFIG = OptimiserConfig(learning_rate=0.003, clip=1.0, warm_up=0.0)


def make(parallel: Parallel) -> State:
    module = make_module(["infonce", "masked_omics", "masked_image"]).float().to(DEVICE)
    return State(Updater(module, CONFIG, parallel, None))


def train(parallel: Parallel, state: State, first: int, last: int) -> list[float]:
    """The loss of each step."""
    module, told = state.updater.module, []
    step = Step(module, parallel.forward, parallel.autocast)
    batch = single(make_batch()).to(DEVICE)
    for number in range(first, last):
        logged = Logged()
        state.updater.update(step.losses(batch, logged), number, STEPS)
        told.append(float(logged.values()["loss"]))
    return told


def work(rank: int, strategy: str, folder: str) -> None:
    os.environ["LOCAL_RANK"] = "0"
    torch.cuda.set_device(DEVICE)
    backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=1)
    position = Position(STOP, 0, 0, {})
    parallel = STRATEGIES[strategy]("bfloat16", DEVICE)
    state = make(parallel)
    whole = train(parallel, state, 0, STOP)
    checkpoints = Checkpoints(Path(folder) / "checkpoints", keep=1)
    stolen = checkpoints.save(position, state)
    whole += train(parallel, state, STOP, STEPS)
    checkpoints.finish()
    parallel = STRATEGIES[strategy]("bfloat16", DEVICE)
    again = make(parallel)
    found, problems = checkpoints.restore({}, again)
    assert found == position and not problems
    resumed = train(parallel, again, STOP, STEPS)
    Path(folder, "told.json").write_text(json.dumps({"whole": whole, "resumed": resumed, "stolen": stolen}))
    dist.destroy_process_group()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_trains_as_plain_training_and_goes_on_alike(strategy, tmp_path, capsys):
    parallel = Replicated("bfloat16", DEVICE)
    plain = train(parallel, make(parallel), 0, STEPS)
    mp.spawn(work, (strategy, str(tmp_path)), nprocs=1)
    told = json.loads((tmp_path / "told.json").read_text())
    apart = max(abs(a / b - 1) for a, b in zip(told["whole"], plain, strict=True))
    after = max(abs(a / b - 1) for a, b in zip(told["resumed"], told["whole"][STOP:], strict=True))
    with capsys.disabled():
        print(
            f"\n{strategy}: {apart:.2e} from plain training, {after:.2e} after resuming, {told['stolen']:.4f} s stolen"
        )
    # Sums in another order round otherwise, to eight bits, and steps multiply that.
    assert apart < 0.03
    assert after < 0.01
