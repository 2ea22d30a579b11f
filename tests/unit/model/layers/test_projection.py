"""A projection that starts centred and whitened."""

from __future__ import annotations

import pytest
import torch

from foundation.model.layers.projection import Projection


@pytest.mark.parametrize(("given", "out"), [(12, 6), (6, 12), (8, 8)])
def test_what_it_was_given_comes_out_centred_and_of_even_spread(given, out):
    torch.manual_seed(0)
    x_ND = torch.randn(400, given) @ torch.diag(torch.logspace(0, 1, given)) + 50
    projection = Projection(given, out)
    projection.init_from(x_ND)
    z_NO = projection(x_ND)
    assert z_NO.mean(dim=0).abs().max() < 1e-3
    spread = torch.linalg.eigvalsh(torch.cov(z_NO.T)).flip(0)[: min(given, out)]
    variance = torch.linalg.eigvalsh(torch.cov(x_ND.T)).flip(0)[: min(given, out)]
    expected = variance / (variance + torch.linalg.eigvalsh(torch.cov(x_ND.T)).mean())
    torch.testing.assert_close(spread, expected, atol=1e-3, rtol=1e-3)


def test_directions_of_no_variance_stay_finite():
    projection = Projection(6, 4)
    projection.init_from(torch.randn(3, 1, generator=torch.Generator().manual_seed(0)).expand(3, 6))
    assert torch.isfinite(projection.weight).all() and torch.isfinite(projection.bias).all()


def test_nearly_equal_vectors_are_told_apart():
    """The reason for it: cosines near 1 before, spread after."""
    torch.manual_seed(0)
    x_ND = 10 + 0.01 * torch.randn(50, 16)
    projection = Projection(16, 8)
    before, after = (
        (lambda z: torch.corrcoef(z).mean())(torch.nn.functional.normalize(make(x_ND), dim=-1))
        for make in (projection, lambda x: (projection.init_from(x), projection(x))[1])
    )
    assert before > 0.9 and abs(after) < 0.2
