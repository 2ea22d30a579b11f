"""Loss and gradients of masked_image on the whole batch are those of several processes on its parts, equal or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from foundation.collectives import sum_over_processes
from foundation.data.batch import Batch
from foundation.modality import ImageModality
from foundation.model.layers.image_patches import patchify
from foundation.model.towers.base import Tokens
from foundation.model.view import TowerOutput, TowerSpec
from foundation.objectives.masked_image import MaskedImage, MaskedImageConfig
from tests.processes import run_in_processes

RECORDS, WIDTH, CHANNELS, PATCH = 64, 6, {"ct": 1, "mri": 3}, (4, 4)
SPLITS = {2: [[32, 32], [50, 14]], 4: [[16, 16, 16, 16], [29, 0, 7, 28]]}
"""Number of processes to how the records are dealt out."""


def make_batch():
    random = torch.Generator().manual_seed(5)
    present_BM = torch.rand(RECORDS, 2, generator=random) < 0.6
    # The third of the four unequal processes has no image of one kind.
    present_BM[29:36, 1] = False
    images, channels = {}, {}
    for position, (name, count) in enumerate(CHANNELS.items()):
        acquired_BC = (torch.rand(RECORDS, count, generator=random) < 0.6) | (torch.arange(count) == 0)
        channels[name] = acquired_BC & present_BM[:, [position]]
        x_BCXY = torch.randn(RECORDS, count, 8, 12, generator=random)
        images[name] = torch.where(channels[name][..., None, None], x_BCXY, torch.nan)
    names, zeros, empty = [f"P{n}" for n in range(RECORDS)], torch.zeros(RECORDS, dtype=torch.int64), [""] * RECORDS
    return Batch(
        tuple(CHANNELS), names, names, zeros, zeros, present_BM, images, channels, {}, {}, {}, empty, empty
    )  # fmt: skip


def evaluate(start, stop):
    """Value, logged losses, and gradients with respect to the tokens of these records and to the heads."""
    torch.manual_seed(0)
    described = {n: ImageModality(channels=list("abc")[:c], shape=[8, 12]) for n, c in CHANNELS.items()}
    specs = [TowerSpec(n, {n: modality}, patch=PATCH, grid=(2, 3)) for n, modality in described.items()]
    objective = MaskedImage(MaskedImageConfig(), specs, dict.fromkeys(CHANNELS, WIDTH))
    tokens = {name: torch.randn(RECORDS, 6, WIDTH)[start:stop].requires_grad_() for name in CHANNELS}
    batch = make_batch().part(start, stop)
    seen = {}
    for name, view in objective.views(batch, seed=0).items():
        present_B = batch.present_BM[:, batch.modalities.index(name)]
        rows = present_B.nonzero()[:, 0]
        made = Tokens(tokens[name][rows].mean(1), tokens[name][rows], ~view.hidden[name][rows], torch.zeros(6))
        made.extras["patches"] = patchify(batch.images[name][rows], PATCH)
        seen[name] = TowerOutput(torch.zeros(len(batch), WIDTH), present_B, view, made, rows)
    loss = objective(seen, batch)
    (3.0 * loss.value).backward()
    return [
        loss.value.detach(),
        {name: sum_over_processes(part) for name, part in loss.parts.items()},
        [x.grad for x in tokens.values()],
        [p.grad for p in objective.parameters()],
    ]


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = [evaluate(sum(sizes[:rank]), sum(sizes[: rank + 1])) for sizes in SPLITS[world]]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", list(SPLITS))
def test_many_processes_equal_one(world, tmp_path):
    run_in_processes(work, (world, str(tmp_path)), world)
    ranks = [torch.load(Path(tmp_path) / f"{rank}.pt") for rank in range(world)]
    value, logged, of_tokens, of_heads = evaluate(0, RECORDS)
    assert value > 0
    for split in range(len(SPLITS[world])):
        values, several, parts, shares = zip(*(rank[split] for rank in ranks), strict=True)
        torch.testing.assert_close(torch.stack(values).sum(), value, rtol=1e-6, atol=1e-6)
        for one in several:
            torch.testing.assert_close(one, logged, rtol=1e-6, atol=1e-6)
        for part, whole in zip(zip(*parts, strict=True), of_tokens, strict=True):
            torch.testing.assert_close(torch.cat(part), whole, rtol=1e-6, atol=1e-6)
        for share, whole in zip(zip(*shares, strict=True), of_heads, strict=True):
            torch.testing.assert_close(torch.stack(share).sum(0), whole, rtol=1e-6, atol=1e-6)
