"""A batch of unequal presence and a small module with any objectives: what tests across processes train on."""

from __future__ import annotations

from dataclasses import replace

import torch

import foundation.objectives  # noqa: F401  (registers them)
from foundation.data.batch import Batch
from foundation.modality import ImageModality, OmicsModality
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.objectives.base import objectives
from pretrain.step import Pretraining

RECORDS = 65
MODALITIES = {
    "mri": ImageModality(channels=["t1", "flair"], shape=[8, 8]),
    "ct": ImageModality(channels=["ct"], shape=[8, 8]),
    "rna": OmicsModality(features=[f"G{n}" for n in range(9)], values="continuous"),
    "mutation": OmicsModality(features=["G0", "G1", "G2"], values="binary"),
    "protein": OmicsModality(features=["P0", "P1"], values="continuous"),
}
NAMES = tuple(MODALITIES)


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


def single(batch: Batch) -> Batch:
    """The same batch in float32."""
    return replace(
        batch, **{kind: {n: x.float() for n, x in getattr(batch, kind).items()} for kind in ("images", "omics")}
    )
