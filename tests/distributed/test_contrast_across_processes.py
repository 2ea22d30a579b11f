"""Loss and gradients of one process on the whole batch are those of several on its parts, equal or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from foundation.collectives import (
    gather_rows,
    gather_sizes,
    logsumexp_over_processes,
    scatter_sums,
    sum_over_processes,
)
from foundation.objectives.contrastive.contrast import infonce, siglip
from tests.processes import run_in_processes

RECORDS, WIDTH, PATIENTS = 64, 16, 41
SPLITS = {2: [[32, 32], [50, 14]], 4: [[16, 16, 16, 16], [29, 0, 7, 28]]}
"""Number of processes to how the records are dealt out."""
LOSSES = {"infonce": (infonce, (14.0,)), "siglip": (siglip, (10.0, -10.0))}
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6}
CASES = [(name, dtype, missing) for name in LOSSES for dtype in BOUNDS for missing in ("some", "none", "unpaired")]


def problem(dtype, missing):
    random = torch.Generator().manual_seed(5)
    a, b = torch.nn.functional.normalize(torch.randn(2, RECORDS, WIDTH, generator=random, dtype=torch.float64), dim=-1)
    patients = torch.randint(PATIENTS, (RECORDS,), generator=random)
    here = torch.rand(2, RECORDS, generator=random) < {"some": 0.6, "none": 1.1, "unpaired": 0.5}[missing]
    if missing == "unpaired":
        here = torch.stack([patients % 2 == 0, patients % 2 == 1])
    # The first of the four unequal processes has nothing on side a.
    here[0, :29] &= missing == "none"
    a[~here[0]], b[~here[1]] = torch.nan, torch.nan
    return a.to(dtype), b.to(dtype), here[0], here[1], patients


def evaluate(name, dtype, missing, part):
    """Value, whole loss, and gradients with respect to this part's embeddings and to the scalars."""
    loss, numbers = LOSSES[name]
    a, b, here_a, here_b, patients = (x[part] for x in problem(dtype, missing))
    inputs = [a.clone().requires_grad_(), b.clone().requires_grad_()]
    inputs += [torch.tensor(number, dtype=dtype, requires_grad=True) for number in numbers]
    found = loss(*inputs[:2], here_a, here_b, patients, *inputs[2:], chunk=11)
    (3.0 * found.value).backward()
    return [found.value.detach(), found.loss, found.rows, *(tensor.grad for tensor in inputs)]


def check_collectives(sizes, rank):
    own = torch.arange(float(sum(sizes)))[sum(sizes[:rank]) : sum(sizes[: rank + 1])]
    assert gather_sizes(sizes[rank], own.device) == sizes
    torch.testing.assert_close(gather_rows(own, sizes), torch.arange(float(sum(sizes))))
    total = len(sizes) * torch.arange(float(sum(sizes)))
    torch.testing.assert_close(scatter_sums(torch.arange(float(sum(sizes))), sizes), len(sizes) * own)
    torch.testing.assert_close(sum_over_processes(torch.arange(float(sum(sizes)))), total)
    values = torch.tensor([-torch.inf, 900.0 + rank, -torch.inf if rank else 2.0])
    expected = torch.stack(
        [torch.tensor(-torch.inf), torch.logsumexp(900 + torch.arange(len(sizes)), 0), torch.tensor(2.0)]
    )
    torch.testing.assert_close(logsumexp_over_processes(values), expected)


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = []
    for sizes in SPLITS[world]:
        check_collectives(sizes, rank)
        part = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        results.append([evaluate(*case, part) for case in CASES])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=list(SPLITS))
def of_processes(request, tmp_path_factory):
    """Case to, for each way to deal out the records, what each process found."""
    folder, world = tmp_path_factory.mktemp("processes"), request.param
    run_in_processes(work, (world, str(folder)), world)
    ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]
    return {case: [[rank[s][c] for rank in ranks] for s in (0, 1)] for c, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}".replace("torch.", ""))
@pytest.mark.parametrize("split", [0, 1], ids=["equal", "unequal"])
def test_many_processes_equal_one(of_processes, case, split):
    parts, whole = of_processes[case][split], evaluate(*case, slice(None))
    bound = {"rtol": BOUNDS[case[1]], "atol": BOUNDS[case[1]]}
    values, losses, rows, of_a, of_b, *of_scalars = zip(*parts, strict=True)
    torch.testing.assert_close(torch.stack(values).sum(), whole[0], **bound)
    for loss, count in zip(losses, rows, strict=True):
        torch.testing.assert_close(loss, whole[1], **bound)
        assert torch.equal(count, whole[2])
    torch.testing.assert_close(torch.cat(of_a), whole[3], **bound)
    torch.testing.assert_close(torch.cat(of_b), whole[4], **bound)
    for shares, of_whole in zip(of_scalars, whole[5:], strict=True):
        torch.testing.assert_close(torch.stack(shares).sum(), of_whole, **bound)
    assert (whole[2] == 0) == (case[2] == "unpaired")
    assert bool(whole[3].any()) == (case[2] != "unpaired")
