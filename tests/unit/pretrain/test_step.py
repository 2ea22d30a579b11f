"""A step in chunks gives the gradient of the whole batch, with dropout on; equal views run a tower once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import foundation.objectives  # noqa: F401  (registers them)
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.sampler import BatchKey
from foundation.data.scaling import fit_preprocessing
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.objectives.base import objectives
from pretrain.step import Logged, Pretraining, Step

RECORDS = 32
EVERY = [*([name] for name in objectives.names()), objectives.names()]


@pytest.fixture(scope="module")
def aligned(simulated: Path):
    cohort = PreparedCohort(simulated / "cohort")
    return align(fit_preprocessing(cohort, np.arange(len(cohort))), cohort)


def make_module(aligned, names: list[str], dropout: float = 0.0) -> Pretraining:
    torch.manual_seed(0)
    omics = towers["omics_transformer"].tiny().model_copy(update={"dropout": dropout})
    parts = {"mri": towers["vit2d"].tiny(), "omics": omics}
    config = MultimodalConfig.of(aligned.preprocessing.described(), parts, fusions["gated_mean"].tiny(), 16)
    model = MultimodalModel(config).double()
    made = {name: objectives[name](objectives[name].tiny(), model.specs, model.widths()) for name in names}
    return Pretraining(model, made, dict.fromkeys(names, 0.7), seed=1).double().train()


def make_batch(aligned, records: int = RECORDS):
    dataset = CohortDataset(aligned, seed=1, dropout=ModalityDropout(default=0.3, channels=0.3))
    batch = dataset.__getitems__(BatchKey(np.arange(records), np.full(records, 2)))
    for values in (batch.images, batch.omics):
        for name in values:
            values[name] = values[name].double()
    return batch


def run(module: Pretraining, batch, chunk_size: int | None = None) -> tuple[dict, dict, int]:
    """What is logged, the gradient of each parameter, and how often backward was called."""
    torch.manual_seed(5)
    logged, calls = Logged(), 0
    for loss in Step(module, chunk_size=chunk_size).losses(batch, logged):
        assert loss.shape == ()
        loss.backward()
        calls += 1
    return logged.values(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}, calls


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("chunk_size", [1, 5, 31])
@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_chunks_give_the_gradient_of_the_whole_batch(aligned, names, chunk_size, dropout):
    if dropout and chunk_size != 5:
        pytest.skip("dropout of a whole batch is another draw than that of its chunks; one size is enough below")
    batch = make_batch(aligned)
    if dropout:
        # The same chunks without the algorithm: every loss of a chunk's own records alone.
        names = [name for name in names if objectives[name].by_record]
        if not names:
            pytest.skip("a loss that compares records has no value in chunks alone")
    expected, theirs, once = run(make_module(aligned, names), batch)
    found, ours, calls = run(make_module(aligned, names), batch, chunk_size)
    assert once == 1 and calls == -(-RECORDS // chunk_size)
    assert set(expected) == set(found)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")
    assert any(gradient.abs().max() > 1e-6 for gradient in theirs.values())
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(
            ours[parameter], gradient, rtol=1e-9, atol=1e-11, msg=lambda m, p=parameter: f"{p}: {m}"
        )


def test_a_chunk_has_the_same_dropout_both_times_it_is_embedded(aligned):
    """With dropout, the embeddings of the second pass are those that the loss was made of, bit for bit."""
    module, batch = make_module(aligned, ["infonce"], dropout=0.5), make_batch(aligned)
    passes: list[list[torch.Tensor]] = [[], []]

    def keep(model, inputs, outputs):
        passes[int(torch.is_grad_enabled())].append(torch.cat([o.z_BD.detach().flatten() for o in outputs.values()]))

    module.model.register_forward_hook(keep)
    torch.manual_seed(5)
    for loss in Step(module, chunk_size=5).losses(batch, Logged()):
        loss.backward()
    assert len(passes[0]) == len(passes[1]) == 7
    assert all(torch.equal(first, second) for first, second in zip(*passes, strict=True))
    after = torch.rand(1)
    torch.manual_seed(5)
    again = make_module(aligned, ["infonce"], dropout=0.5)
    torch.manual_seed(5)
    for loss in Step(again, chunk_size=5).losses(batch, Logged()):
        loss.backward()
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("image", ["some", "nobody"])
@pytest.mark.parametrize("name", objectives.names())
def test_garbage_in_what_is_absent_changes_no_bit_of_any_gradient(aligned, name, image):
    """Neither that of an absent channel, nor that of an absent image, even where a tower reads a dummy row."""
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
    expected, theirs, _ = run(make_module(aligned, [name]), batch)
    found, ours, _ = run(make_module(aligned, [name]), spoilt)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert ours.keys() == theirs.keys()
    assert [key for key, gradient in theirs.items() if not torch.equal(ours[key], gradient)] == []


@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_every_parameter_of_every_tower_has_a_gradient_even_where_nobody_has_its_modality(aligned, names):
    """A parameter without one would stop a step on many processes."""
    module, batch = make_module(aligned, names), make_batch(aligned)
    batch.present_BM[:, batch.modalities.index("mri")] = False
    batch.channels["mri"][:] = False
    module.freeze_what_no_view_asks_for(batch)
    _, gradients, _ = run(module, batch, chunk_size=10)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert set(gradients) == trained
    # masked_image asks for image towers alone.
    assert any(name.startswith("model.towers.omics") for name in trained) == (names != ["masked_image"])
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_losses_add_up_with_their_weights(aligned):
    both, _, _ = run(make_module(aligned, ["infonce", "masked_omics"]), make_batch(aligned))
    torch.testing.assert_close(both["loss"], 0.7 * (both["infonce"] + both["masked_omics"]))


def test_all_views_are_made_in_one_forward_and_equal_ones_once(aligned):
    """Two contrasts that hide nothing ask for the same views of both towers, and the scan is also fused."""
    module, batch = make_module(aligned, ["infonce", "siglip", "masked_omics"]), make_batch(aligned)
    runs = {"model": 0, "mri": 0, "omics": 0}

    def count(name):
        return lambda *_: runs.__setitem__(name, runs[name] + 1)

    module.model.register_forward_hook(count("model"))
    for name in ("mri", "omics"):
        module.model.towers[name].register_forward_hook(count(name))
    run(module, batch)
    assert runs["model"] == 1
    # The scan: both contrasts and the fused view show it whole.
    assert runs["mri"] == 1
    # Omics: whole for both contrasts, two halves for each of them, and masked.
    assert runs["omics"] == 6
