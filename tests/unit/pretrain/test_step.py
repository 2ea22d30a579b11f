"""A cached step gives the gradient of the whole batch, with dropout of modalities, channels and features on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import foundation.objectives  # noqa: F401  (registers them)
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.preprocessing import Preprocessing
from foundation.data.sampler import BatchKey
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.objectives.base import objectives
from foundation.progress import Silent
from foundation.simulation.simulate import simulate
from pretrain.step import Pretraining


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("step")
    simulate(folder / "source", patients=32, seed=4, progress=lambda done, total: None)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    cohort = PreparedCohort(folder / "cohort")
    return align(Preprocessing.fit(cohort, np.arange(len(cohort))), cohort)


def make_module(aligned, names: list[str]) -> Pretraining:
    torch.manual_seed(0)
    parts = {"mri": towers["vit2d"].tiny(), "omics": towers["omics_transformer"].tiny()}
    config = MultimodalConfig.of(aligned.preprocessing, parts, fusions["gated_mean"].tiny(), 16)
    model = MultimodalModel(config).double()
    made = {name: objectives[name](objectives[name].tiny(), model.sites, model.widths()) for name in names}
    return Pretraining(model, made, dict.fromkeys(names, 0.7), seed=1).double().train()


def make_batch(aligned):
    dataset = CohortDataset(aligned, seed=1, dropout=ModalityDropout(default=0.3, channels=0.3))
    batch = dataset.__getitems__(BatchKey(np.arange(32), np.full(32, 2)))
    for values in (batch.images, batch.omics):
        for name in values:
            values[name] = values[name].double()
    return batch


def gradients(module: Pretraining) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk_size", [1, 5, 31])
@pytest.mark.parametrize("name", objectives.names())
def test_chunks_give_the_gradient_of_the_whole_batch(aligned, name, chunk_size):
    batch = make_batch(aligned)
    whole, cached = make_module(aligned, [name]), make_module(aligned, [name])
    expected = whole.backward(batch, None)
    found = cached.backward(batch, chunk_size)
    assert set(expected) == set(found)
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-6, atol=1e-7)
    ours, theirs = gradients(cached), gradients(whole)
    assert any(gradient.abs().max() > 1e-6 for gradient in theirs.values())
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(
            ours[parameter], gradient, rtol=1e-4, atol=1e-7, msg=lambda m, p=parameter: f"{p}: {m}"
        )


@pytest.mark.parametrize("image", ["some", "nobody"])
@pytest.mark.parametrize("name", objectives.names())
def test_garbage_in_what_is_absent_changes_no_bit_of_any_gradient(aligned, name, image):
    """Neither that of an absent channel, nor that of an absent image, even where a tower looks at a stand-in."""
    batch = make_batch(aligned)
    if image == "nobody":
        batch.present_BM[:, batch.modalities.index("mri")] = False
        batch.channels["mri"][:] = False
    spoilt = replace(
        batch,
        images={
            n: torch.where(batch.channels[n][..., None, None, None], x, torch.nan) for n, x in batch.images.items()
        },
        omics={n: torch.where(batch.observed[n], x, torch.nan) for n, x in batch.omics.items()},
    )
    clean, dirty = make_module(aligned, [name]), make_module(aligned, [name])
    expected, found = clean.backward(batch, None), dirty.backward(spoilt, None)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    ours, theirs = gradients(dirty), gradients(clean)
    assert ours.keys() == theirs.keys()
    assert [key for key, gradient in theirs.items() if not torch.equal(ours[key], gradient)] == []


def test_losses_add_up_with_their_weights(aligned):
    batch = make_batch(aligned)
    both = make_module(aligned, ["infonce", "masked_omics"]).backward(batch, None)
    torch.testing.assert_close(both["loss"], 0.7 * (both["infonce"] + both["masked_omics"]))
