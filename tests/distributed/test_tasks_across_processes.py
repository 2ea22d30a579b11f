"""Loss and gradients of one process on the whole batch are those of two on its parts, equal or not, for every task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import finetune.tasks  # noqa: F401  registers them
from finetune.tasks.base import tasks
from finetune.tasks.survival import SurvivalConfig
from tests.processes import run_in_processes

RECORDS, STEPS = 48, 3
SPLITS = [(24, 24), (40, 8), (48, 0)]
CONFIGS = [tasks[name].tiny() for name in tasks.names()] + [SurvivalConfig(endpoint="survival", form="intervals")]
CONFIGS += [SurvivalConfig(endpoint="survival", memory=0)]
DECLARED = {
    "subtype": {"kind": "subtype", "classes": {"a": 1, "b": 1, "c": 1}},
    "response": {"kind": "response", "classes": {"PD": 1, "SD": 1, "PR": 1, "CR": 1}},
    "survival": {"kind": "survival", "unit": "days"},
    "regression": {"kind": "regression", "unit": ""},
    "binary": {"kind": "subtype", "classes": {"wildtype": 1, "mutant": 1}},
    "binary_2": {"kind": "subtype", "classes": {"no": 1, "yes": 1}},
}


def labels(random):
    def number(high):
        return torch.randint(high, (RECORDS,), generator=random)

    missing = number(4) == 0
    codes = {"subtype": number(3), "response": number(4), "binary": number(2), "binary_2": number(2)}
    endpoints = {name: {"code": torch.where(missing, -1, code)} for name, code in codes.items()}
    # The last eight are censored: a process that holds them alone has no event.
    event = (torch.arange(RECORDS) < 40).double() * number(2)
    endpoints["survival"] = {
        "time": torch.where(missing, torch.nan, 1.0 + number(9)).double(),
        "event": torch.where(missing, torch.nan, event).double(),
    }
    endpoints["regression"] = {
        "value": torch.where(missing, torch.nan, torch.randn(RECORDS, generator=random)).double()
    }
    return endpoints


def evaluate(config, part):
    """Loss and gradient of this part of three batches, of which the later ones remember the earlier ones."""
    random = torch.Generator().manual_seed(5)
    batches = [labels(random) for _ in range(STEPS)]
    task = tasks.build(config, DECLARED)
    groups = ["glioma", "lung", "glioma"] * (RECORDS // 3)
    known = {name: {p: v.numpy() for p, v in parts.items()} for name, parts in batches[0].items()}
    task.fit(known, np.array(groups))
    width = task.head(4)(torch.zeros(1, 4)).shape[1]
    found = []
    for endpoints in batches:
        outputs = torch.randn(RECORDS, width, generator=random, dtype=torch.float64).sort(dim=1, descending=True)[0]
        own = outputs[part].requires_grad_()
        loss = task.loss(
            own, {n: {p: v[part] for p, v in parts.items()} for n, parts in endpoints.items()}, groups[part]
        )
        (3 * loss).backward()
        found.append((loss.detach(), own.grad))
    return found


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = []
    for sizes in SPLITS:
        part = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        results.append([evaluate(config, part) for config in CONFIGS])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_in_processes(work, (str(folder),), 2)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("split", range(len(SPLITS)), ids=str)
@pytest.mark.parametrize("number", range(len(CONFIGS)), ids=lambda n: CONFIGS[n].task)
def test_two_processes_equal_one(of_processes, number, split):
    for step, (whole, gradient) in enumerate(evaluate(CONFIGS[number], slice(None))):
        (one, of_one), (two, of_two) = (rank[split][number][step] for rank in of_processes)
        torch.testing.assert_close(one + two, whole, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(torch.cat([of_one, of_two]), gradient, rtol=1e-6, atol=1e-12)
        assert gradient.any()
