"""Explainers ask the network that predicts, leave it as it was, and say what they mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.explain.images.explainers import (
    EXPLAINERS,
    grad_cam,
    grad_cam_plus_plus,
    integrated,
    integrated_gradients,
    occlusion,
    relevance,
)
from finetune.explain.images.explainers.grad_cam import _plus_plus
from finetune.explain.images.guards import agreement, gains_of_orders
from finetune.explain.images.scan import Scan
from finetune.explain.networks import network_methods
from foundation.errors import ConfigError


@pytest.fixture(params=["predictor", "in_3d"])
def scan(request, seeing):
    kept = request.getfixturevalue(request.param)
    [row, *_] = np.flatnonzero(seeing.present_NM[:, seeing.modalities.index("mri")])
    return Scan(network_methods(kept, seeing), "mri", int(row))


def scores(scan):
    [network] = scan.networks.values()
    records = network.read(np.array([scan.row]), columns_of(network))
    return records.scores()


def columns_of(network):
    from finetune.explain.methods import Columns

    return Columns.of(network.aligned)


def test_copies_of_a_record_are_scored_as_the_record(scan):
    whole = scan.taken(torch.ones(3, *scan.cells.grid, dtype=torch.bool))
    torch.testing.assert_close(whole, scores(scan).expand(3, -1), atol=1e-5, rtol=0)
    assert (scan.taken(torch.zeros(1, *scan.cells.grid, dtype=torch.bool)) - whole[:1]).abs().max() > 1e-3


def test_integrated_gradients_add_up_and_are_captums(scan):
    from captum.attr import IntegratedGradients

    found = integrated_gradients(scan, [12])
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), scan.moved(), atol=0.02, rtol=0)
    theirs = IntegratedGradients(lambda x: scan.read(x)[:, 1]).attribute(
        scan.x_CXYZ[None], scan.plain_CXYZ[None], n_steps=12, method="gausslegendre"
    )
    torch.testing.assert_close(found[1], scan.cells.sums(theirs[0].sum(dim=0).double()), atol=1e-5, rtol=1e-3)


def test_more_steps_are_taken_where_cells_do_not_add_up(scan, monkeypatch):
    def gap(steps):
        return (integrated_gradients(scan, steps).sum(dim=(1, 2, 3)) - scan.moved()).abs().max()

    monkeypatch.setattr(integrated, "TOLERANCE", 1)
    assert gap([1, 48]) == gap([1]), "what adds up was computed again"
    monkeypatch.setattr(integrated, "TOLERANCE", 1e-6)
    assert gap([1, 48]) < gap([1])


def test_occlusion_is_what_is_lost_without_a_cell(scan):
    found = occlusion(scan)
    [at, *_] = scan.tissue_G.nonzero().tolist()
    x_CXYZ = scan.x_CXYZ.clone()
    box = [(number == i).nonzero().flatten() for number, i in zip(scan.cells.number, at, strict=True)]
    ends = tuple(slice(int(b[0]), int(b[-1]) + 1) for b in box)
    x_CXYZ[(slice(None), *ends)] = scan.plain_CXYZ[(slice(None), *ends)]
    with torch.no_grad():
        lost = scan.read(scan.x_CXYZ[None]) - scan.read(x_CXYZ[None])
    torch.testing.assert_close(found[(slice(None), *at)], lost[0], atol=1e-6, rtol=0)
    assert not found[:, ~scan.tissue_G].any()


def test_relevance_writes_attention_out_and_leaves_the_tower_as_it_was(scan):
    [key] = scan.networks
    tower = scan.tower(key)
    before = scores(scan)
    found = relevance(scan)
    assert found.abs().amax(dim=(1, 2, 3)).min() > 0
    assert "forward" not in vars(tower) and not tower.stack()[-1]._forward_hooks
    torch.testing.assert_close(scores(scan), before)
    # Of a sum of scores that is always 0 nothing is relevant: log probabilities beyond their mean.
    torch.testing.assert_close(found.sum(dim=0).abs().max(), torch.tensor(0.0, dtype=torch.float64), atol=0.05, rtol=0)


def test_relevance_finds_attention_that_is_not_fused(predictor, seeing):
    [row, *_] = np.flatnonzero(seeing.present_NM[:, seeing.modalities.index("mri")])
    scan = Scan(network_methods(predictor, seeing), "mri", int(row))
    [key] = scan.networks
    expected, blocks = relevance(scan), scan.tower(key).stack()
    for block in blocks:
        block.attn.fused_attn = False
    try:
        torch.testing.assert_close(relevance(scan), expected)
        assert not any(block.attn.fused_attn for block in blocks)
    finally:
        for block in blocks:
            block.attn.fused_attn = True


def test_relevance_refuses_a_tower_without_attention(predictor, seeing, monkeypatch):
    [row, *_] = np.flatnonzero(seeing.present_NM[:, seeing.modalities.index("mri")])
    scan = Scan(network_methods(predictor, seeing), "mri", int(row))
    [key] = scan.networks
    for block in scan.tower(key).stack():
        monkeypatch.setattr(block.attn, "forward", lambda x, **_: x, raising=False)
    with pytest.raises(ConfigError, match="no attention"):
        relevance(scan)


@pytest.fixture
def of_convolutions(convolutional, seeing):
    [row, *_] = np.flatnonzero(seeing.present_NM[:, seeing.modalities.index("mri")])
    return Scan(network_methods(convolutional, seeing), "mri", int(row))


def test_grad_cam_is_captums(of_convolutions):
    from captum.attr import LayerGradCam

    scan = of_convolutions
    [key] = scan.networks
    tower = scan.tower(key)
    layer = tower.net.layer4  # after which a ResNet has nothing but its head
    found = grad_cam(scan)
    assert "forward_features" not in vars(tower.net) and found.shape[1:] == scan.cells.grid
    for s in range(len(scan.scores)):
        theirs = LayerGradCam(lambda x, s=s: scan.read(x)[:, s], layer).attribute(scan.x_CXYZ[None])
        expected = theirs.movedim(0, -1)[0] if scan.cells.order[0] == 2 else theirs[:, 0]
        torch.testing.assert_close(found[s], expected.detach().double(), atol=1e-6, rtol=1e-3)
    assert found.abs().amax(dim=(1, 2, 3)).min() > 0


def test_grad_cam_plus_plus_weighs_as_its_paper_says(of_convolutions):
    """Against equations 10 and 19 written out for one feature of one slice, cell by cell."""
    draws = np.random.default_rng(0)
    a, g = draws.random(5).tolist(), (draws.standard_normal(5) / 3).tolist()
    shares = [g[i] ** 2 / (2 * g[i] ** 2 + sum(a[j] * g[i] ** 3 for j in range(5))) for i in range(5)]
    weight = sum(share * max(slope, 0) for share, slope in zip(shares, g, strict=True))
    found = _plus_plus(torch.tensor(a).view(1, 5, 1), torch.tensor(g).view(1, 5, 1))
    assert float(found) == pytest.approx(weight, rel=1e-4)
    assert _plus_plus(torch.ones(1, 3, 2), torch.zeros(1, 3, 2)).tolist() == [[[0, 0]]]
    found = grad_cam_plus_plus(of_convolutions)
    assert found.min() >= 0 and found.amax(dim=(1, 2, 3)).min() > 0


def test_grad_cam_refuses_a_tower_without_convolutions(scan):
    with pytest.raises(ConfigError, match="is no convolutional network"):
        grad_cam(scan)
    with pytest.raises(ConfigError, match="is no convolutional network"):
        grad_cam_plus_plus(scan)


def test_a_map_beats_random_order_and_its_opposite_does_not(scan):
    found = EXPLAINERS["integrated_gradients"](scan)
    gain = gains_of_orders(scan, found, torch.Generator().manual_seed(0))
    worse = gains_of_orders(scan, -found, torch.Generator().manual_seed(0))
    assert (gain > 0).all() and (worse < 0).all()
    level = occlusion(scan)[:, scan.tissue_G]
    assert np.mean([agreement(a.numpy(), b.numpy()) for a, b in zip(found[:, scan.tissue_G], level, strict=True)]) > 0.3


def test_the_command_offers_every_explainer_and_the_page_says_which():
    from finetune.explain.images.explainers import called
    from finetune.explain.images.run import DEFAULT
    from launch.commands.explain import EXPLAINERS as OFFERED

    assert set(OFFERED) == set(EXPLAINERS) and OFFERED[0] == DEFAULT
    assert called("relevance") == "relevance of attention" and called(DEFAULT) == "integrated gradients"
