"""What every registered objective must do; found through the registry, built with `tiny()`."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import foundation.objectives  # noqa: F401  registers them
from foundation.data.batch import Batch
from foundation.modality import OmicsFeatures
from foundation.model.layers.image_patches import patchify
from foundation.model.towers.base import Tokens, count_parameters
from foundation.model.view import FUSED, TowerOutput, TowerSpec
from foundation.objectives.base import objectives

RECORDS, WIDTH, TOKENS = 10, 8, 4
PATCH, GRID = (4, 4, 1), (1, 1, TOKENS)
IMAGES = {"ct": (1, 4, 4, 4), "mri": (2, 4, 4, 4)}
OMICS = {
    "cnv": OmicsFeatures(("a", "b", "c"), "ordinal"),
    "mutation": OmicsFeatures(("a", "d"), "binary"),
    "rna": OmicsFeatures(("a", "b", "c", "d"), "continuous"),
}
MODALITIES = (*IMAGES, *OMICS)
SITES = [
    *(TowerSpec(n, "image", (n,), channels=shape[0], patch=PATCH, grid=GRID) for n, shape in IMAGES.items()),
    TowerSpec("omics", "omics", tuple(OMICS), tuple(OMICS.values())),
]
WIDTHS = {**dict.fromkeys(IMAGES, WIDTH), "omics": WIDTH, FUSED: WIDTH}
BF16_TOLERANCE = 0.05

every_objective = pytest.mark.parametrize("name", objectives.names())


class Towers(nn.Module):
    """Stand-ins for towers: a linear map of what a view shows, zero where it shows nothing."""

    def __init__(self):
        super().__init__()
        sizes = {name: math.prod(shape) for name, shape in IMAGES.items()}
        sizes |= {name: 2 * len(f.names) for name, f in OMICS.items()}
        self.maps = nn.ModuleDict({name: nn.Linear(size, WIDTH * TOKENS) for name, size in sizes.items()})

    def forward(self, batch, view, needs_tokens):
        names = [n for s in SITES if view.tower in (s.name, "fused") for n in s.modalities]
        tokens, present = torch.zeros(len(batch), TOKENS, WIDTH), torch.zeros(len(batch), dtype=torch.bool)
        for name in names:
            shown = (batch.present_BM & view.keep_BM)[:, [batch.modalities.index(name)]]
            if name in IMAGES:
                values = patchify(
                    torch.where(batch.channels[name][:, :, None, None, None], batch.images[name], 0), PATCH
                )
                values = torch.where(view.hidden[name][..., None], 0, values) if name in view.hidden else values
                values = values.flatten(1)
            else:
                shown = shown & batch.observed[name] & ~view.hidden.get(name, torch.zeros_like(batch.observed[name]))
                values = torch.cat([torch.where(shown, batch.omics[name], 0), shown], dim=1)
            here = shown.any(dim=1)
            made = self.maps[name](torch.where(here[:, None], values, 0)).view(-1, TOKENS, WIDTH)
            tokens, present = tokens + made * here[:, None, None], present | here
        rows = present.nonzero()[:, 0]
        z = nn.functional.normalize(tokens.mean(dim=1), dim=-1)
        if not needs_tokens:
            return TowerOutput(z, present, view)
        real = torch.ones(len(rows), TOKENS, dtype=torch.bool)
        of_rows = Tokens(tokens[rows].mean(1), tokens[rows], real, torch.zeros(TOKENS, dtype=torch.int64))
        patches = patchify(batch.images[view.tower][rows], PATCH) if view.tower in view.hidden else None
        return TowerOutput(z, present, view, of_rows, rows, patches)


def make_batch(present=0.7):
    random = torch.Generator().manual_seed(3)
    present_BM = torch.rand(RECORDS, len(MODALITIES), generator=random) < present
    images = {n: torch.randn(RECORDS, *shape, generator=random) for n, shape in IMAGES.items()}
    omics = {n: torch.randn(RECORDS, len(f.names), generator=random) for n, f in OMICS.items()}
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
    objective = objectives.build(objectives[name].tiny(), SITES, WIDTHS)
    return objective, Towers()


def evaluate(objective, towers, batch, garbage=None):
    """Loss, and the gradients of all parameters; with garbage in the embeddings of absent records."""
    views = objective.views(batch, seed=0)
    seen = {name: towers(batch, view, objective.needs_tokens) for name, view in views.items()}
    if garbage is not None:
        for look in seen.values():
            look.z_BD = torch.where(look.present_B[:, None], look.z_BD, garbage)
    loss = objective(seen, batch)
    parameters = [*objective.parameters(), *towers.parameters()]
    gradients = torch.autograd.grad(loss.value, parameters, allow_unused=True, retain_graph=True)
    return loss, gradients


@every_objective
def test_loss_is_a_finite_scalar_and_logs_are_detached(name):
    loss, _ = evaluate(*build(name), make_batch())
    assert loss.value.shape == () and loss.value.isfinite() and loss.value > 0
    assert all(value.shape == () and not value.requires_grad for value in loss.logged.values())


@every_objective
def test_gradients_reach_every_parameter(name):
    objective, towers = build(name)
    batch = make_batch()
    _, gradients = evaluate(objective, towers, batch)
    names = [key for key, _ in [*objective.named_parameters(), *towers.named_parameters()]]
    unreached = [key for key, g in zip(names, gradients, strict=True) if g is None or not g.any()]
    looked_at = {view.tower for view in objective.views(batch, seed=0).values()}
    spared = {m for site in SITES if not looked_at & {site.name, FUSED} for m in site.modalities}
    assert all(key.split(".")[1] in spared for key in unreached)


@every_objective
def test_views_name_towers_and_have_the_shape_of_the_batch(name):
    objective, _ = build(name)
    batch = make_batch()
    for view in objective.views(batch, seed=0).values():
        assert view.tower in [*(site.name for site in SITES), "fused"]
        assert view.keep_BM.shape == batch.present_BM.shape and view.keep_BM.dtype == torch.bool


@every_objective
def test_views_follow_the_records(name):
    objective, _ = build(name)
    batch, order = make_batch(), torch.randperm(RECORDS, generator=torch.Generator().manual_seed(1))
    views, other = objective.views(batch, seed=0), objective.views(permuted(batch, order), seed=0)
    for key, view in views.items():
        assert torch.equal(view.keep_BM[order], other[key].keep_BM)
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
    objective, towers = build(name)
    save_file(objective.state_dict(), tmp_path / "objective.safetensors")
    torch.manual_seed(1)
    again = objectives.build(objectives[name].tiny(), SITES, WIDTHS)
    again.load_state_dict(load_file(tmp_path / "objective.safetensors"))
    batch = make_batch()
    assert torch.equal(evaluate(objective, towers, batch)[0].value, evaluate(again, towers, batch)[0].value)


@every_objective
def test_bf16_stays_near_single_precision(name):
    parts, batch = build(name), make_batch()
    exact = evaluate(*parts, batch)[0].value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = evaluate(*parts, batch)[0].value
    torch.testing.assert_close(rough.float(), exact, rtol=BF16_TOLERANCE, atol=BF16_TOLERANCE)


@every_objective
def test_size_is_counted(name):
    objective, _ = build(name)
    assert count_parameters(objective)["total"] == sum(p.numel() for p in objective.parameters()) > 0
