"""What every registered objective must do on a real model; found through the registry, built with `tiny()`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import foundation.objectives  # noqa: F401  registers them
from foundation.data.batch import Batch
from foundation.modality import ImageModality, OmicsModality
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.objectives.base import objectives

RECORDS, WIDTH = 10, 8
IMAGES = {"ct": (1, 16, 16, 2), "mri": (2, 16, 16, 2)}
OMICS = {
    "cnv": OmicsModality(features=["a", "b", "c"], values="ordinal"),
    "mutation": OmicsModality(features=["a", "d"], values="binary"),
    "rna": OmicsModality(features=["a", "b", "c", "d"], values="continuous"),
}
MODALITIES = (*IMAGES, *OMICS)
DESCRIBED = {
    **{name: ImageModality(channels=[str(c) for c in range(n)], shape=shape) for name, (n, *shape) in IMAGES.items()},
    **OMICS,
}
BF16_TOLERANCE = 0.05

every_objective = pytest.mark.parametrize("name", objectives.names())


def make_batch(present=0.7):
    random = torch.Generator().manual_seed(3)
    present_BM = torch.rand(RECORDS, len(MODALITIES), generator=random) < present
    images = {n: torch.randn(RECORDS, *shape, generator=random) for n, shape in IMAGES.items()}
    omics = {n: torch.randn(RECORDS, len(f.features), generator=random) for n, f in OMICS.items()}
    omics["mutation"] = (omics["mutation"] > 0).float()
    observed = {
        n: (torch.rand(x.shape, generator=random) < 0.8) & present_BM[:, [MODALITIES.index(n)]]
        for n, x in omics.items()
    }
    channels = {n: torch.rand(RECORDS, shape[0], generator=random) < 0.7 for n, shape in IMAGES.items()}
    for name, acquired in channels.items():
        acquired[:, 0] |= ~acquired.any(dim=1)
        acquired &= present_BM[:, [MODALITIES.index(name)]]
    records = [f"P{number // 2}/{number % 2}" for number in range(RECORDS)]
    zeros, empty = torch.zeros(RECORDS, dtype=torch.int64), [""] * RECORDS
    return Batch(
        MODALITIES, [r[:2] for r in records], records, torch.arange(RECORDS), zeros, present_BM,
        images, channels, omics, observed, {}, empty, empty,
    )  # fmt: skip


def permuted(batch, order):
    """The same records in another order."""
    lists = {n: [getattr(batch, n)[i] for i in order] for n in ("patients", "records", "sites", "groups")}
    return replace(batch._map(lambda tensor: tensor[order]), **lists)


def build(name):
    torch.manual_seed(0)
    parts = {**dict.fromkeys(IMAGES, towers["vit2d"].tiny()), "omics": towers["omics_transformer"].tiny()}
    model = MultimodalModel(MultimodalConfig.of(DESCRIBED, parts, fusions["gated_mean"].tiny(), WIDTH))
    return objectives.build(objectives[name].tiny(), model.specs, model.widths()), model


def evaluate(objective, model, batch, garbage=None):
    """Loss, and the gradients of all parameters; with garbage in the embeddings of absent records."""
    outputs = model(batch, objective.views(batch, seed=0), seed=0)
    if garbage is not None:
        for output in outputs.values():
            output.z_BD = torch.where(output.present_B[:, None], output.z_BD, garbage)
    loss = objective(outputs, batch)
    parameters = [*objective.parameters(), *model.parameters()]
    gradients = torch.autograd.grad(loss.value, parameters, allow_unused=True, retain_graph=True)
    return loss, gradients


@every_objective
def test_loss_is_a_finite_scalar_and_logs_are_detached(name):
    loss, _ = evaluate(*build(name), make_batch())
    assert loss.value.shape == () and loss.value.isfinite() and loss.value > 0
    told = [*loss.parts.values(), *loss.facts.values()]
    assert loss.parts and all(value.shape == () and not value.requires_grad for value in told)


@every_objective
def test_gradients_reach_every_parameter(name):
    objective, model = build(name)
    batch = make_batch()
    _, gradients = evaluate(objective, model, batch)
    assert all(gradient is not None and gradient.any() for gradient in gradients[: len(list(objective.parameters()))])
    asked = {view.tower for view in objective.views(batch, seed=0).values()}
    names = [key for key, _ in model.named_parameters()]
    reached = [key for key, g in zip(names, gradients[-len(names) :], strict=True) if g is not None and g.any()]
    for spec in model.specs:
        assert any(key.startswith(f"towers.{spec.name}.") for key in reached) == bool(asked & {spec.name, "fused"})


@every_objective
def test_views_name_towers_and_have_the_shape_of_the_batch(name):
    objective, model = build(name)
    batch = make_batch()
    for view in objective.views(batch, seed=0).values():
        assert view.tower in [*(spec.name for spec in model.specs), "fused"]
        for mask in [*view.keep.values(), *view.hidden.values()]:
            assert len(mask) == RECORDS and mask.dtype == torch.bool


@every_objective
def test_views_follow_the_records(name):
    objective, _ = build(name)
    batch, order = make_batch(), torch.randperm(RECORDS, generator=torch.Generator().manual_seed(1))
    views, other = objective.views(batch, seed=0), objective.views(permuted(batch, order), seed=0)
    for key, view in views.items():
        assert all(torch.equal(mask[order], other[key].keep[m]) for m, mask in view.keep.items())
        assert all(torch.equal(mask[order], other[key].hidden[m]) for m, mask in view.hidden.items())


@every_objective
def test_order_of_records_does_not_change_the_loss(name):
    parts, batch = build(name), make_batch()
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(1))
    (one, of_one), (other, of_other) = evaluate(*parts, batch), evaluate(*parts, permuted(batch, order))
    torch.testing.assert_close(one.value, other.value)
    for a, b in zip(of_one, of_other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@every_objective
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e20])
def test_garbage_in_absent_places_changes_no_bit(name, garbage):
    parts, batch = build(name), make_batch()
    spoilt = replace(
        batch,
        omics={n: torch.where(batch.observed[n], x, garbage) for n, x in batch.omics.items()},
        images={n: torch.where(batch.channels[n][:, :, None, None, None], x, garbage) for n, x in batch.images.items()},
    )
    (clean, of_clean), (dirty, of_dirty) = evaluate(*parts, batch), evaluate(*parts, spoilt, garbage)
    assert torch.equal(clean.value, dirty.value)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(of_clean, of_dirty, strict=True))


@every_objective
def test_a_batch_of_nobody_has_no_loss_and_stays_in_the_graph(name):
    loss, _ = evaluate(*build(name), make_batch(present=0.0))
    assert loss.value == 0 and loss.value.requires_grad


@every_objective
def test_saved_and_loaded_is_the_same(name, tmp_path):
    objective, model = build(name)
    save_file(objective.state_dict(), tmp_path / "objective.safetensors")
    torch.manual_seed(1)
    again = objectives.build(objectives[name].tiny(), model.specs, model.widths())
    again.load_state_dict(load_file(tmp_path / "objective.safetensors"))
    batch = make_batch()
    assert torch.equal(evaluate(objective, model, batch)[0].value, evaluate(again, model, batch)[0].value)


@every_objective
def test_bf16_stays_near_single_precision(name):
    parts, batch = build(name), make_batch()
    exact = evaluate(*parts, batch)[0].value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = evaluate(*parts, batch)[0].value
    torch.testing.assert_close(rough.float(), exact, rtol=BF16_TOLERANCE, atol=BF16_TOLERANCE)
