"""Every strategy on two and three processes takes the steps of one process: the same losses, norms and weights."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from foundation.model.layers.running import compiled, recomputed
from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.base import Parallel
from foundation.training.parallel.replicated import Replicated
from foundation.training.parallel.strategies import STRATEGIES
from foundation.training.update import Updater
from pretrain.step import Logged, Pretraining, Step
from tests.distributed.batches import make_batch, make_module, single
from tests.processes import run_in_processes

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
    "recomputed": {"recompute": True},
    "layers": {"layer_decay": 0.5},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compile": True},
}
SLOW = ("compiled", "recomputed", "layers")
"""In `make slow`: a compiler takes a minute, and each of the others seconds of every strategy."""

CARRIED = [("ddp", "zero2"), ("zero2", "zero3"), ("zero3", "fsdp"), ("fsdp", "ddp")]
"""From the strategy that writes a checkpoint to the one that reads it; each writes once and reads once."""

IN_THREE = ("whole", "bad")
CPU = torch.device("cpu")


def can(strategy: str, case: str) -> bool:
    return not set(STRATEGIES[strategy].cannot) & CASES[case].keys()


def train(
    kind: type[Parallel],
    *,
    double: bool,
    rank=0,
    world=1,
    precision="float32",
    chunk_size=None,
    ema=None,
    accumulate=1,
    bad=None,
    **of_module,
) -> dict[str, Any]:
    """Losses, norms and finiteness of some steps, and weights, moments and averages after them."""
    module, config = prepared(**of_module)
    module = module.double() if double else module.float()
    parallel = kind(precision, CPU)
    updater = Updater(module, config, parallel, ema)
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


def prepared(recompute=False, compile=False, layer_decay=1.0) -> tuple[Pretraining, OptimiserConfig]:
    """A module whose blocks run in some manner, and an optimiser for it."""
    module = make_module(["infonce", "masked_omics", "masked_image"])
    for block in module.model.blocks():
        if compile:
            compiled(block)
        if recompute:
            recomputed(block)
    if layer_decay < 1:
        # As if they had come from a file.
        module.model.towers["mri"].weights = {"from": "a file"}  # type: ignore[assignment]
    return module, CONFIG.model_copy(update={"layer_decay": layer_decay})


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


def work(rank: int, world: int, folder: str, cases: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = {}
    for strategy, kind in STRATEGIES.items():
        for case in cases:
            if can(strategy, case):
                double = is_double(strategy, case)
                found[strategy, case] = train(kind, double=double, rank=rank, world=world, **CASES[case])
    if world == 2 and cases != SLOW:
        for strategy, other in CARRIED:
            found["carried", strategy, other] = carried(rank, world, strategy, other, folder)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def is_double(strategy: str, case: str) -> bool:
    """Whether it can train in float64, where rounding is told apart from everything else; DeepSpeed cannot."""
    return not strategy.startswith("zero") and case != "bfloat16"


def tolerance(strategy: str, case: str) -> dict[str, float]:
    """bfloat16 has three digits, and AdamW's first steps are as long for a gradient that is nearly nothing."""
    if case == "bfloat16":
        return {"rtol": 3e-2, "atol": 6e-2}
    return {"rtol": 1e-9, "atol": 1e-9} if is_double(strategy, case) else {"rtol": 1e-3, "atol": 1e-4}


pytestmark = pytest.mark.timeout(900)


def ranks_of(world: int, cases: tuple[str, ...], folder: Path) -> list[dict]:
    """What each of several processes found."""
    run_in_processes(work, (world, str(folder), cases), world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return ranks_of(2, tuple(case for case in CASES if case not in SLOW), tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return ranks_of(3, IN_THREE, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def two_slow(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return ranks_of(2, SLOW, tmp_path_factory.mktemp("slow"))


@pytest.fixture(scope="module")
def alone() -> Any:
    """The same in one process, by case."""
    return cache(lambda case, double: train(Replicated, double=double, **CASES[case]))


WHO = [
    *(("two", case) for case in CASES if case not in SLOW),
    *(pytest.param("three", case, marks=pytest.mark.slow) for case in IN_THREE),
    # The compiler meets its own deprecations.
    *(pytest.param("two_slow", case, marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")]) for case in SLOW),
]


@pytest.mark.parametrize(("processes", "case"), WHO)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_takes_the_steps_of_one_process(request, alone, strategy, processes, case):
    if not can(strategy, case):
        pytest.skip(f"a config that asks {strategy} for this is refused")
    expected, near = alone(case, is_double(strategy, case)), tolerance(strategy, case)
    for rank in request.getfixturevalue(processes):
        found = rank[strategy, case]
        assert found.keys() == expected.keys()
        for (loss, norm, finite), (loss_alone, norm_alone, finite_alone) in zip(
            found["told"], expected["told"], strict=True
        ):
            assert finite == finite_alone
            if finite:
                assert loss == pytest.approx(loss_alone, rel=near["rtol"])
                assert norm == pytest.approx(norm_alone, rel=near["rtol"])
        for part in ("module", "optimiser", *(["average"] if "average" in expected else [])):
            assert found[part].keys() == expected[part].keys()
            for name, value in expected[part].items():
                torch.testing.assert_close(
                    found[part][name], value, **near, msg=lambda m, n=f"{part} {name}": f"{n}: {m}"
                )


@pytest.mark.parametrize(("strategy", "other"), CARRIED)
def test_another_strategy_goes_on_from_its_checkpoint(two, strategy, other):
    for rank in two:
        states = rank["carried", strategy, other]
        assert states[strategy].keys() == states[other].keys()
        assert any(name.endswith("/exp_avg_sq") for name in states[other])
        for name, value in states[strategy].items():
            torch.testing.assert_close(
                states[other][name], value, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
