"""masked_omics against numpy: what is hidden, of whom, and what an error costs."""

from __future__ import annotations

import numpy as np
import torch

from foundation.data.batch import Batch
from foundation.modality import ImageModality, OmicsModality
from foundation.model.view import TowerOutput, TowerSpec
from foundation.objectives.masked_omics import MaskedOmics, MaskedOmicsConfig

RECORDS, WIDTH = 400, 6
FEATURES = {
    "rna": OmicsModality(features=tuple("abcde"), values="continuous"),
    "mutation": OmicsModality(features=tuple("abc"), values="binary"),
}
SPECS = [
    TowerSpec("mri", {"mri": ImageModality(channels=["a"], shape=[4, 4])}, patch=(2, 2), grid=(2, 2)),
    TowerSpec("omics", dict(FEATURES)),
]
WIDTHS = {"mri": 4, "omics": 4, "fused": WIDTH}


def make_batch(epoch: int = 0) -> Batch:
    random = torch.Generator().manual_seed(0)
    present_BM = torch.rand(RECORDS, 3, generator=random) < 0.7
    observed = {
        name: (torch.rand(RECORDS, len(part.features), generator=random) < 0.9) & present_BM[:, [column]]
        for column, (name, part) in enumerate(FEATURES.items(), start=1)
    }
    omics = {"rna": 3 * torch.randn(RECORDS, 5, generator=random), "mutation": torch.ones(RECORDS, 3)}
    omics["mutation"][::2] = 0
    omics = {name: torch.where(observed[name], values, torch.nan) for name, values in omics.items()}
    records, empty = [f"P{number}" for number in range(RECORDS)], [""] * RECORDS
    zeros = torch.zeros(RECORDS, dtype=torch.int64)
    names = ("mri", *FEATURES)
    return Batch(names, records, records, zeros, zeros + epoch, present_BM, {}, {}, omics, observed, {}, empty, empty)


def build(**config) -> MaskedOmics:
    torch.manual_seed(0)
    return MaskedOmics(MaskedOmicsConfig(width=8, **config), SPECS, WIDTHS)


def test_so_many_observed_features_are_hidden_and_no_other():
    batch = make_batch()
    view = build(fraction=0.4).views(batch, seed=3)["masked"]
    for name, hidden_BF in view.hidden.items():
        assert not (hidden_BF & ~batch.observed[name]).any()
        share = hidden_BF.sum() / batch.observed[name].sum()
        assert abs(float(share) - 0.4) < 0.05


def test_so_many_of_those_with_an_image_have_all_omics_hidden():
    batch = make_batch()
    view = build(fraction=0.01, image_alone=0.5).views(batch, seed=3)["masked"]
    all_B = torch.stack([(view.hidden[m] == batch.observed[m]).all(dim=1) for m in FEATURES]).all(dim=0)
    some_B = torch.stack([batch.observed[m].any(dim=1) for m in FEATURES]).any(dim=0)
    with_image_B = batch.present_BM[:, 0]
    assert abs(float(all_B[some_B & with_image_B].float().mean()) - 0.5) < 0.1
    assert float(all_B[some_B & ~with_image_B].float().mean()) < 0.05


def test_draws_are_of_the_epoch_and_not_of_the_batch():
    one, again, later = (
        build(fraction=0.4, image_alone=0.3).views(make_batch(epoch), seed=3)["masked"] for epoch in (0, 0, 1)
    )
    part = build(fraction=0.4, image_alone=0.3).views(make_batch().part(10, 20), seed=3)["masked"]
    for name in FEATURES:
        assert torch.equal(one.hidden[name], again.hidden[name])
        assert torch.equal(one.hidden[name][10:20], part.hidden[name])
        assert not torch.equal(one.hidden[name], later.hidden[name])


def test_the_loss_is_that_of_numpy():
    batch, objective = make_batch(), build(fraction=0.4, image_alone=0.3).double()
    view = objective.views(batch, seed=3)["masked"]
    z_BD = torch.nn.functional.normalize(torch.randn(RECORDS, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)
    present_B = torch.arange(RECORDS) % 5 != 0
    loss = objective({"masked": TowerOutput(z_BD, present_B, view)}, batch)
    weights = {name: tensor.detach().numpy() for name, tensor in objective.named_parameters()}
    hidden = z_BD.double().numpy() * np.sqrt(WIDTH) @ weights["trunk.weight"].T + weights["trunk.bias"]
    trunk = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    means = []
    for name, part in FEATURES.items():
        said = trunk @ weights[f"heads.{name}.weight"].T + weights[f"heads.{name}.bias"]
        true = batch.omics[name].double().numpy()
        apart = np.abs(said - true)
        cost = np.where(apart < 1, 0.5 * apart**2, apart - 0.5)
        if part.values == "binary":
            cost = np.logaddexp(0, said) - true * said
        means.append(cost[(view.hidden[name] & present_B[:, None]).numpy()].mean())
        np.testing.assert_allclose(float(loss.parts[name]), means[-1], rtol=1e-6)
    np.testing.assert_allclose(float(loss.value.detach()), np.mean(means), rtol=1e-6)
