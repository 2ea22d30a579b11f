"""The step on several processes, each with a part of a batch, gives the gradient of one process with all of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import foundation.objectives  # noqa: F401  (registers them)
from foundation.data.batch import Batch
from foundation.modality import ImageModality, OmicsModality
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.objectives.base import objectives
from foundation.training.parallel import Parallel
from pretrain.step import Logged, Pretraining, Step

RECORDS = 65
SPLITS = [[32, 33], [1, 64]]
CHUNKS = [None, 32, 7]
MODALITIES = {
    "mri": ImageModality(channels=["t1", "flair"], shape=[8, 8]),
    "ct": ImageModality(channels=["ct"], shape=[8, 8]),
    "rna": OmicsModality(features=[f"G{n}" for n in range(9)], values="continuous"),
    "mutation": OmicsModality(features=["G0", "G1", "G2"], values="binary"),
    "protein": OmicsModality(features=["P0", "P1"], values="continuous"),
}
NAMES = tuple(MODALITIES)
EVERY = [*([name] for name in objectives.names()), objectives.names()]


def make_batch() -> Batch:
    """Presence is unequal: of the first 32 records nobody has a CT, and few have omics."""
    random = torch.Generator().manual_seed(7)
    present_BM = torch.rand(RECORDS, len(NAMES), generator=random) < 0.6
    present_BM[:32, NAMES.index("ct")] = False
    present_BM[:20, 2:] = False
    images, channels, omics, observed = {}, {}, {}, {}
    for column, (name, modality) in enumerate(MODALITIES.items()):
        here_B1 = present_BM[:, [column]]
        if isinstance(modality, ImageModality):
            count = len(modality.channels)
            channels[name] = (
                (torch.rand(RECORDS, count, generator=random) < 0.7) | (torch.arange(count) == 0)
            ) & here_B1
            images[name] = torch.randn(RECORDS, count, *modality.shape, generator=random, dtype=torch.float64)
        else:
            observed[name] = (torch.rand(RECORDS, len(modality.features), generator=random) < 0.8) & here_B1
            observed[name][:, 0] |= here_B1[:, 0]
            omics[name] = torch.randn(RECORDS, len(modality.features), generator=random, dtype=torch.float64)
    omics["mutation"] = (omics["mutation"] > 0).double()
    # Every third patient has two scans, which may lie on different processes.
    patients = [f"P{n - 33 if n >= 33 and n % 3 == 0 else n}" for n in range(RECORDS)]
    records = [f"{patient}/{n}" for n, patient in enumerate(patients)]
    zeros, empty = torch.zeros(RECORDS, dtype=torch.int64), [""] * RECORDS
    return Batch(
        NAMES, patients, records, torch.arange(RECORDS), zeros, present_BM, images, channels, omics, observed, {},
        empty, empty,
    )  # fmt: skip


def make_module(names: list[str]) -> Pretraining:
    torch.manual_seed(0)
    image = towers["vit2d"].Config(arguments={"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2})
    omics = towers["omics_transformer"].tiny()
    parts = {"mri": image, "ct": image, "omics": omics}
    model = MultimodalModel(MultimodalConfig.of(MODALITIES, parts, fusions["gated_mean"].tiny(), 8))
    made = {name: objectives[name](objectives[name].tiny(), model.specs, model.widths()) for name in names}
    return Pretraining(model, made, {name: 0.3 + place for place, name in enumerate(names)}, seed=1).double().train()


def evaluate(module: Pretraining, batch: Batch, chunk_size: int | None) -> tuple[dict, dict]:
    """Gradients and what is logged, summed over the processes there are."""
    module = copy.deepcopy(module)
    parallel, logged = Parallel(device=torch.device("cpu")), Logged()
    for loss in Step(module, parallel.wrap(module.model), chunk_size=chunk_size).losses(batch, logged):
        parallel.backward(loss)
    parallel.sum_gradients(module.parameters())
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
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
    mp.spawn(work, (2, str(folder)), nprocs=2)
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
