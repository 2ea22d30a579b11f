"""The step on several processes, each with a part of a batch, gives the gradient of one process with all of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from foundation.data.batch import Batch
from foundation.objectives.base import objectives
from foundation.training.parallel.base import sum_gradients
from foundation.training.parallel.replicated import Replicated
from pretrain.step import Logged, Pretraining, Step
from tests.distributed.batches import make_batch, make_module
from tests.processes import run_in_processes

SPLITS = [[32, 33], [1, 64]]
CHUNKS = [None, 32, 7]
EVERY = [*([name] for name in objectives.names()), objectives.names()]


def evaluate(module: Pretraining, batch: Batch, chunk_size: int | None) -> tuple[dict, dict]:
    """Gradients and what is logged, summed over the processes there are."""
    module = copy.deepcopy(module)
    parallel, logged = Replicated(device=torch.device("cpu")), Logged()
    for loss in Step(module, parallel.forward, chunk_size=chunk_size).losses(batch, logged):
        parallel.backward(loss)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    sum_gradients(list(module.parameters()))
    gradients = {name: p.grad for name, p in module.named_parameters()}
    return gradients, logged.values()


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = {}
    for names in EVERY:
        module = make_module(names)
        for split, sizes in enumerate(SPLITS):
            part = make_batch().part(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            for chunk_size in CHUNKS:
                found["+".join(names), split, chunk_size] = evaluate(module, part, chunk_size)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("processes")
    run_in_processes(work, (2, str(folder)), 2)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("split", range(len(SPLITS)), ids=str)
@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_two_processes_have_the_gradient_of_one(ranks, names, split, chunk_size):
    expected, told = evaluate(make_module(names), make_batch(), None)
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for rank in ranks:
        gradients, logged = rank["+".join(names), split, chunk_size]
        for name, gradient in expected.items():
            torch.testing.assert_close(
                gradients[name], gradient, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )
        assert logged.keys() == told.keys()
        for name, value in told.items():
            torch.testing.assert_close(logged[name].double(), value.double(), rtol=1e-7, atol=1e-10)
