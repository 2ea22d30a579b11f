"""Identities, modalities and value functions of features."""

from __future__ import annotations

import numpy as np
import torch

from foundation.modality import OmicsModality
from foundation.model.layers.feature_embedding import FeatureEmbedding

FEATURES = {
    "rna": OmicsModality(features=("A", "B", "C"), values="continuous"),
    "mutation": OmicsModality(features=("C", "D"), values="binary"),
}
WIDTH = 4


def embedding():
    torch.manual_seed(0)
    return FeatureEmbedding(FEATURES, WIDTH)


def contribution(module, modality, feature, value):
    """What a feature contributes, from the definition."""
    slope = module.slopes[list(FEATURES).index(modality)]
    gene = ["A", "B", "C", "D"].index(FEATURES[modality].features[feature])
    identity = module.identity.weight[gene].detach().numpy().astype(np.float64)
    slopes = (slope.weight.detach().numpy() @ identity + slope.bias.detach().numpy()).reshape(-1, WIDTH)
    if modality == "mutation":
        return identity + value * slopes[0]
    pieces = (min(max(value, -1), 1), max(value - 1, 0) / 3, min(value + 1, 0) / 3)
    return identity + sum(piece * each for piece, each in zip(pieces, slopes, strict=True))


def test_a_contribution_is_identity_plus_a_piecewise_linear_function_of_the_value():
    module = embedding()
    for modality, values in {"rna": [-9.0, -1.0, -0.3, 0.0, 0.7, 1.0, 4.0], "mutation": [0.0, 1.0]}.items():
        size = len(FEATURES[modality].features)
        for value in values:
            basis = module.basis(modality, torch.full((1, size), value), torch.ones(1, size, dtype=torch.bool))
            got = torch.einsum("bfr,frd->bfd", basis, module.loadings(modality))[0].detach().numpy()
            expected = [contribution(module, modality, feature, value) for feature in range(size)]
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_basis_has_a_slope_everywhere():
    values = torch.tensor([[-3.0, -1.0, 0.0]], requires_grad=True)
    for sign in (1, -1):
        basis = embedding().basis("rna", sign * values, torch.ones(1, 3, dtype=torch.bool))
        (slope,) = torch.autograd.grad(basis.sum(), values)
        assert (slope != 0).all()


def test_what_is_not_observed_has_a_zero_basis():
    observed = torch.tensor([[True, False, True]])
    basis = embedding().basis("rna", torch.tensor([[0.0, float("nan"), 5.0]]), observed)
    assert torch.equal(basis.any(-1), observed)


def test_identities_are_shared_by_name_and_only_by_name():
    module = embedding()
    assert module.identity.weight.shape == (4, WIDTH)
    assert torch.equal(module.identities("rna")[2], module.identities("mutation")[0])
    assert torch.equal(module.identities("mutation")[1], module.identity.weight[3])


def test_at_a_start_slopes_of_identities_are_the_weights():
    """Up to one scale per modality and directions at right angles: sums of contributions tell the factors."""
    module = embedding()
    weights = {
        "rna": torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]),
        "mutation": torch.tensor([[3.0, 0.0], [0.0, 1.0]]),
    }
    module.init_from(weights)
    for name, weights_FK in weights.items():
        slopes_FRD = module.loadings(name)[:, 1:]
        gram_FF = (slopes_FRD[:, 0] @ slopes_FRD[:, 0].T).detach().numpy()
        expected_FF = (weights_FK @ weights_FK.T / weights_FK.square().sum(1).mean()).numpy()
        # A tenth of the random start is left, so that the two agree roughly.
        assert np.corrcoef(gram_FF.ravel(), expected_FF.ravel())[0, 1] > 0.9
    assert torch.isfinite(module.identity.weight).all() and (module.identity.weight.norm(dim=1) > 0).all()
