"""masked_image against numpy, patch by patch: what is hidden, what is predicted of it, and who counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foundation.data.batch import Batch
from foundation.errors import ConfigError
from foundation.modality import ImageModality, OmicsModality
from foundation.model.layers.image_patches import patchify
from foundation.model.towers.base import Tokens
from foundation.model.view import TowerOutput, TowerSpec
from foundation.objectives.masked_image import MaskedImage, MaskedImageConfig

RECORDS, WIDTH = 6, 5
MRI = TowerSpec("mri", {"mri": ImageModality(channels=list("abc"), shape=[6, 4, 8])}, patch=(2, 2, 4), grid=(3, 2, 2))
CT = TowerSpec("ct", {"ct": ImageModality(channels=["a"], shape=[8, 20])}, patch=(4, 4), grid=(2, 5))
OMICS = TowerSpec("omics", {"rna": OmicsModality(features=["a", "b"], values="continuous")})
SPECS = {spec.name: spec for spec in (CT, MRI)}
WIDTHS = {"mri": WIDTH, "ct": WIDTH, "omics": WIDTH, "fused": WIDTH}


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    present_BM = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0], [1, 1]], dtype=torch.bool)
    acquired_BC = (torch.rand(RECORDS, 3, generator=random) < 0.6) | torch.tensor([False, True, False])
    channels = {"ct": present_BM[:, :1], "mri": present_BM[:, 1:] & acquired_BC}
    images = {}
    for name, spec in SPECS.items():
        shape = [cells * voxels for cells, voxels in zip(spec.grid, spec.patch, strict=True)]
        acquired = channels[name].reshape(RECORDS, len(spec.image[1].channels), *[1] * len(shape))
        x = 3 * torch.randn(RECORDS, len(spec.image[1].channels), *shape, generator=random) + 1
        images[name] = torch.where(acquired, x, torch.nan)
    records, zeros = [f"P{number}" for number in range(RECORDS)], torch.zeros(RECORDS, dtype=torch.int64)
    empty = [""] * RECORDS
    return Batch(
        ("ct", "mri"), records, records, zeros, zeros, present_BM, images, channels, {}, {}, {}, empty, empty
    )  # fmt: skip


def build(**config) -> MaskedImage:
    torch.manual_seed(0)
    return MaskedImage(MaskedImageConfig(**config), [CT, MRI, OMICS], WIDTHS)


def make_outputs(batch: Batch, objective: MaskedImage) -> dict[str, TowerOutput]:
    random = torch.Generator().manual_seed(1)
    seen = {}
    for name, view in objective.views(batch, seed=7).items():
        spec = SPECS[name]
        present_B = batch.present_BM[:, batch.modalities.index(name)]
        rows = present_B.nonzero()[:, 0]
        x_PTD = torch.randn(len(rows), int(np.prod(spec.grid)), WIDTH, generator=random).requires_grad_()
        tokens = Tokens(x_PTD.mean(1), x_PTD, ~view.hidden[name][rows], torch.zeros(x_PTD.shape[1], dtype=torch.int64))
        tokens.extras["patches"] = patchify(batch.images[name][rows], spec.patch)
        seen[name] = TowerOutput(torch.zeros(RECORDS, WIDTH), present_B, view, tokens, rows)
    return seen


def expected(objective: MaskedImage, seen: dict[str, TowerOutput], batch: Batch, normalise: bool) -> float:
    """One patch and channel after the other."""
    of_towers = []
    for name, spec in SPECS.items():
        head, output, of_records = objective.heads[name], seen[name], []
        for place, row in enumerate(output.rows.tolist()):
            errors = []
            for token in output.view.hidden[name][row].nonzero()[:, 0].tolist():
                predicted = (
                    head(output.tokens.tokens_BTD[place, token])
                    .detach()
                    .numpy()
                    .reshape(len(spec.image[1].channels), -1)
                )
                cell = np.unravel_index(token, spec.grid)
                box = tuple(slice(at * size, (at + 1) * size) for at, size in zip(cell, spec.patch, strict=True))
                for channel in batch.channels[name][row].nonzero()[:, 0].tolist():
                    true = batch.images[name][row, channel].numpy()[box].ravel()
                    if normalise:
                        true = (true - true.mean()) / np.sqrt(true.var() + 1e-6)
                    errors.append(np.square(predicted[channel] - true).mean())
            of_records.append(np.mean(errors))
        of_towers.append(np.mean(of_records))
    return float(np.mean(of_towers))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("width", [None, 4])
def test_loss_is_that_of_hidden_patches_of_acquired_channels(batch, normalise, width):
    objective = build(normalise=normalise, width=width)
    seen = make_outputs(batch, objective)
    loss = objective(seen, batch)
    assert loss.value.item() == pytest.approx(expected(objective, seen, batch, normalise), rel=1e-5)
    assert loss.value.item() == pytest.approx(np.mean([loss.parts[name].item() for name in SPECS]), rel=1e-6)


def test_only_hidden_tokens_are_read(batch):
    objective = build()
    seen = make_outputs(batch, objective)
    objective(seen, batch).value.backward()
    for name, one in seen.items():
        read_PT = one.tokens.tokens_BTD.grad.any(dim=2)
        assert torch.equal(read_PT, one.view.hidden[name][one.rows])


def test_an_absent_channel_teaches_its_part_of_the_head_nothing(batch):
    objective = build()
    batch.channels["mri"][:, 2] = False
    objective(make_outputs(batch, objective), batch).value.backward()
    of_channels = objective.heads["mri"].weight.grad.unflatten(0, (3, -1))
    assert of_channels[0].any() and of_channels[1].any() and not of_channels[2].any()


@pytest.mark.parametrize(("fraction", "of_twelve"), [(0.01, 1), (0.5, 6), (0.6, 7), (0.99, 12)])
def test_every_record_has_the_same_number_of_patches_hidden(batch, fraction, of_twelve):
    hidden_BT = build(fraction=fraction).views(batch, seed=0)["mri"].hidden["mri"]
    assert hidden_BT.shape == (RECORDS, 12) and (hidden_BT.sum(dim=1) == of_twelve).all()


def test_what_is_hidden_depends_on_seed_record_and_epoch_alone(batch):
    objective = build(fraction=0.5)

    def hidden(seed=0, which=batch):
        return objective.views(which, seed)["mri"].hidden["mri"]

    assert torch.equal(hidden(), hidden())
    assert torch.equal(hidden()[2:4], hidden(which=batch.part(2, 4)))
    assert len(hidden().unique(dim=0)) == RECORDS
    assert not torch.equal(hidden(), hidden(seed=1))
    first = hidden()
    batch.epochs = batch.epochs + 1
    assert not torch.equal(hidden(), first)


def test_every_patch_is_hidden_now_and_then(batch):
    objective = build(fraction=0.5)
    often_T = sum(objective.views(batch, seed)["mri"].hidden["mri"].float().mean(0) for seed in range(100)) / 100
    assert ((often_T - 0.5).abs() < 0.1).all()


def test_records_that_have_the_image_count_the_same(batch):
    views = build().views(batch, seed=0)
    torch.testing.assert_close(views["ct"].weight_B, torch.tensor([1, 1, 0, 1, 0, 1]) / 4)
    torch.testing.assert_close(views["mri"].weight_B, torch.tensor([1, 0, 1, 1, 0, 1]) / 4)


def test_it_needs_an_image():
    with pytest.raises(ConfigError, match="no tower reads images"):
        MaskedImage(MaskedImageConfig(), [OMICS], WIDTHS)
