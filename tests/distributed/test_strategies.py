"""Every strategy on two and three processes takes the steps of one process: the same losses, norms and weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor

from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.base import Parallel
from foundation.training.parallel.replicated import Replicated
from foundation.training.parallel.strategies import STRATEGIES
from foundation.training.update import Updater
from pretrain.step import Logged, Step
from tests.distributed.batches import make_batch, make_module, single

SPLITS = {1: [65], 2: [32, 33], 3: [1, 31, 33]}
"""Of the first rank's records nobody has a CT, and few have omics."""

STEPS = 3
CONFIG = OptimiserConfig(learning_rate=0.01, clip=0.5, warm_up=0.0, weight_decay=0.1, tower_rates={"omics": 0.5})
CASES: dict[str, dict[str, Any]] = {
    "whole": {},
    "chunks": {"chunk_size": 20},
    "average": {"ema": 0.9},
    "accumulated": {"accumulate": 2},
    "bad": {"bad": 1},
}
CARRIED = [("ddp", "zero2"), ("zero2", "zero3"), ("zero3", "fsdp"), ("fsdp", "ddp")]
"""From the strategy that writes a checkpoint to the one that reads it; each writes once and reads once."""

IN_THREE = ("whole", "bad")
CPU = torch.device("cpu")


def can(strategy: str, case: str) -> bool:
    return not set(STRATEGIES[strategy].cannot) & CASES[case].keys()


def train(
    parallel: Parallel, *, double: bool, chunk_size=None, ema=None, accumulate=1, bad=None, rank=0, world=1
) -> dict[str, Any]:
    """Losses, norms and finiteness of some steps, and weights, moments and averages after them."""
    module = make_module(["infonce", "masked_omics", "masked_image"])
    module = module.double() if double else module.float()
    updater = Updater(module, CONFIG, parallel, ema)
    step = Step(module, parallel.forward, parallel.autocast, chunk_size)
    whole, sizes = make_batch(), SPLITS[world]
    if not double:
        whole = single(whole)
    batch = whole.part(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    told = []
    for number in range(STEPS):
        logged = Logged()

        def losses(number=number, logged=logged):
            for _ in range(accumulate):
                for loss in step.losses(batch, logged, 1 / accumulate):
                    # On the last rank alone something is not finite.
                    yield loss * float("nan") if bad == number and rank == world - 1 else loss

        updated = updater.update(losses(), number, STEPS)
        told.append((float(logged.values()["loss"]), float(updated.gradient_norm), bool(updated.finite)))
    state = parallel.state(module, updater.optimiser)
    if updater.average is not None:
        state["average"] = updater.average.state_dict()
    return {"told": told, **{name: {n: gathered(t) for n, t in part.items()} for name, part in state.items()}}


def carried(rank: int, world: int, strategy: str, other: str, folder: str) -> dict[str, dict[str, torch.Tensor]]:
    """What a strategy holds that read the checkpoint of another, and what both have after one more step."""
    kinds = {name: STRATEGIES[name](device=CPU) for name in (strategy, other)}
    sizes = SPLITS[world]
    batch = single(make_batch()).part(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    states = {}
    for name, parallel in kinds.items():
        module = make_module(["infonce", "masked_omics", "masked_image"]).float()
        states[name] = State(Updater(module, CONFIG, parallel, None))

    def take(name: str, number: int) -> None:
        updater = states[name].updater
        updater.update(Step(updater.module, kinds[name].forward).losses(batch, Logged()), number, STEPS)

    take(strategy, 0), take(strategy, 1)
    checkpoints = Checkpoints(Path(folder) / f"{strategy}-{other}", keep=1)
    checkpoints.save(Position(2, 0, 0, {}), states[strategy])
    checkpoints.finish()
    position, problems = Checkpoints(checkpoints.folder, keep=1).restore({}, states[other])
    assert position is not None and position.step == 2 and not problems
    take(strategy, 2), take(other, 2)
    return {
        name: {f"{part}/{n}": gathered(t) for part, tensors in state.tensors().items() for n, t in tensors.items()}
        for name, state in states.items()
    }


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = {}
    for strategy, kind in STRATEGIES.items():
        for case, arguments in CASES.items():
            if not can(strategy, case) or (world == 3 and case not in IN_THREE):
                continue
            found[strategy, case] = train(
                kind(device=CPU), double=is_double(strategy), rank=rank, world=world, **arguments
            )
    if world == 2:
        for strategy, other in CARRIED:
            found["carried", strategy, other] = carried(rank, world, strategy, other, folder)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def is_double(strategy: str) -> bool:
    """Whether it can train in float64, where rounding is told apart from everything else; DeepSpeed cannot."""
    return not strategy.startswith("zero")


pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("strategies")
    mp.spawn(work, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone() -> dict:
    return {
        (case, double): train(Replicated(device=CPU), double=double, **arguments)
        for case, arguments in CASES.items()
        for double in (True, False)
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_takes_the_steps_of_one_process(ranks, alone, strategy, case):
    if not can(strategy, case):
        pytest.skip(f"a config that asks {strategy} for this is refused")
    if (strategy, case) not in ranks[0]:
        pytest.skip("seen on two processes")
    expected = alone[case, is_double(strategy)]
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if is_double(strategy) else {"rtol": 1e-3, "atol": 1e-4}
    for rank in ranks:
        found = rank[strategy, case]
        assert found.keys() == expected.keys()
        for (loss, norm, finite), (loss_alone, norm_alone, finite_alone) in zip(
            found["told"], expected["told"], strict=True
        ):
            assert finite == finite_alone
            if finite:
                assert loss == pytest.approx(loss_alone, rel=tolerance["rtol"])
                assert norm == pytest.approx(norm_alone, rel=tolerance["rtol"])
        for part in ("module", "optimiser", *(["average"] if "average" in expected else [])):
            assert found[part].keys() == expected[part].keys()
            for name, value in expected[part].items():
                torch.testing.assert_close(
                    found[part][name], value, **tolerance, msg=lambda m, n=f"{part} {name}": f"{n}: {m}"
                )


@pytest.mark.parametrize(("strategy", "other"), CARRIED)
def test_another_strategy_goes_on_from_its_checkpoint(ranks, strategy, other):
    for rank in ranks:
        if ("carried", strategy, other) not in rank:
            pytest.skip("seen on two processes")
        states = rank["carried", strategy, other]
        assert states[strategy].keys() == states[other].keys()
        assert any(name.endswith("/exp_avg_sq") for name in states[other])
        for name, value in states[strategy].items():
            torch.testing.assert_close(
                states[other][name], value, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
