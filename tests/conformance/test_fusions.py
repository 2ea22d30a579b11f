"""What every registered fusion keeps to."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional

import foundation.model.fusion  # noqa: F401
from foundation.model.fusion.base import fusions
from foundation.model.towers.base import count_parameters

WIDTH = 8
COUNT = 3
PRESENT = torch.tensor(
    [[True, True, True], [True, False, True], [False, True, False], [False, False, False], [True, True, False]]
)
BF16_TOLERANCE = 0.03
"""On vectors of length 1: some products rounded to 8 bits, and sums of a few of them."""

each_fusion = pytest.mark.parametrize("name", fusions.names())


def build(name, seed=0):
    """A fusion away from its start, where some parameters are zero."""
    torch.manual_seed(seed)
    fusion = fusions.build(fusions[name].tiny(), WIDTH, COUNT)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return fusion


def embeddings(seed=1):
    z_BMD = torch.randn(len(PRESENT), COUNT, WIDTH, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(z_BMD, dim=-1)


def gradients(fusion, z_BMD, present_BM):
    """Output, and gradients of every parameter and of the embeddings."""
    fusion.zero_grad()
    z_BMD = z_BMD.clone().requires_grad_()
    fused_BD = fusion(z_BMD, present_BM)
    (fused_BD * embeddings(seed=5)[:, 0]).sum().backward()
    return fused_BD.detach(), [p.grad.clone() for p in fusion.parameters()], z_BMD.grad


@each_fusion
def test_gives_unit_vectors_and_zeros_where_nothing_is_present(name):
    fused = build(name)(embeddings(), PRESENT)
    assert fused.shape == (len(PRESENT), WIDTH) and fused.dtype == torch.float32
    assert torch.allclose(fused.norm(dim=1), PRESENT.any(1).float(), atol=1e-6)
    assert not fused[3].any()


@each_fusion
def test_starts_close_to_the_mean(name):
    torch.manual_seed(0)
    fusion = fusions.build(fusions[name].tiny(), WIDTH, COUNT)
    z_BMD = embeddings()
    mean = functional.normalize((z_BMD * PRESENT[..., None]).sum(1), dim=-1)
    assert (fusion(z_BMD, PRESENT) * mean).sum(1)[PRESENT.any(1)].min() > 0.9


@each_fusion
def test_gradients_reach_every_parameter(name):
    fusion = build(name)
    _, parameters, z_grad = gradients(fusion, embeddings(), PRESENT)
    for (parameter, _), gradient in zip(fusion.named_parameters(), parameters, strict=True):
        assert gradient.isfinite().all() and gradient.any(), parameter
    assert torch.equal(z_grad.any(-1), PRESENT)


@each_fusion
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_garbage_in_absent_modalities_changes_no_bit(name, garbage):
    fusion = build(name)
    z_BMD = embeddings()
    clean = gradients(fusion, z_BMD, PRESENT)
    dirty = gradients(fusion, torch.where(PRESENT[..., None], z_BMD, garbage), PRESENT)
    assert torch.equal(clean[0], dirty[0]) and torch.equal(clean[2], dirty[2])
    assert all(torch.equal(a, b) for a, b in zip(clean[1], dirty[1], strict=True))


@each_fusion
def test_a_batch_in_which_nothing_is_present_gives_zeros_and_finite_gradients(name):
    fused, parameters, z_grad = gradients(build(name), embeddings(), torch.zeros_like(PRESENT))
    assert not fused.any() and not z_grad.any()
    assert all(gradient.isfinite().all() for gradient in parameters)


@each_fusion
def test_each_present_modality_matters(name):
    fusion = build(name)
    z_BMD, everything = embeddings(), torch.ones_like(PRESENT)
    for modality in range(COUNT):
        without = everything.clone()
        without[:, modality] = False
        assert not torch.allclose(fusion(z_BMD, everything), fusion(z_BMD, without), atol=1e-3)


@each_fusion
def test_knows_which_modality_an_embedding_is_of(name):
    fusion = build(name)
    z_BMD, everything = embeddings(), torch.ones_like(PRESENT)
    assert not torch.allclose(fusion(z_BMD, everything), fusion(z_BMD.flip(1), everything), atol=1e-3)


@each_fusion
def test_a_record_is_the_same_whoever_else_is_in_the_batch(name):
    fusion = build(name)
    z_BMD, order = embeddings(), torch.tensor([3, 1, 4, 0, 2])
    fused = fusion(z_BMD, PRESENT)
    assert torch.allclose(fusion(z_BMD[order], PRESENT[order]), fused[order], atol=1e-6)
    assert torch.allclose(fusion(z_BMD[1:2], PRESENT[1:2]), fused[1:2], atol=1e-6)


@each_fusion
def test_saved_and_loaded_gives_the_same_bits(name):
    fusion, other = build(name), build(name, seed=9)
    expected = fusion(embeddings(), PRESENT)
    assert not torch.equal(other(embeddings(), PRESENT), expected)
    other.load_state_dict(load(save(fusion.state_dict())))
    assert torch.equal(other(embeddings(), PRESENT), expected)


@each_fusion
def test_repeats_itself_in_evaluation(name):
    fusion = build(name).eval()
    assert torch.equal(fusion(embeddings(), PRESENT), fusion(embeddings(), PRESENT))


@each_fusion
def test_bf16_is_close_to_fp32(name):
    fusion = build(name)
    expected = fusion(embeddings(), PRESENT)
    with torch.autocast("cpu", torch.bfloat16):
        got = fusion(embeddings(), PRESENT)
    whole = fusion.to(torch.bfloat16)(embeddings().to(torch.bfloat16), PRESENT)
    for each in (got, whole):
        assert each.dtype == torch.float32
        assert (each - expected).abs().max() <= BF16_TOLERANCE


@each_fusion
def test_its_parameters_are_counted(name):
    counted = count_parameters(build(name))
    assert 0 < counted["trainable"] == counted["total"] <= 12 * WIDTH * WIDTH
