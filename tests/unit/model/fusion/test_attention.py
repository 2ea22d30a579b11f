"""Fusion by attention, against the same on what is present alone."""

from __future__ import annotations

import pytest
import torch

from foundation.errors import ConfigError
from foundation.model.fusion.attention import AttentionConfig, AttentionFusion


def test_a_record_is_joined_as_if_absent_modalities_did_not_exist():
    torch.manual_seed(0)
    fusion = AttentionFusion(AttentionConfig(depth=2), width=8, count=3)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    z = torch.randn(4, 3, 8)
    present = torch.tensor([[True, True, True], [False, True, True], [True, False, False], [False, False, False]])
    z = torch.where(present[..., None], z, 0)
    got = fusion.join(z, present)
    for row, chosen in enumerate(present):
        x = torch.cat([fusion.query[None], (z[row] + fusion.modality_MD)[chosen]])[None]
        for block in fusion.blocks:
            x = block(x, torch.ones(x.shape[:2], dtype=torch.bool))
        mean = z[row][chosen].mean(0) if chosen.any() else torch.zeros(8)
        assert torch.allclose(got[row], mean + fusion.out(fusion.norm(x[0, 0])), atol=1e-5)


def test_heads_have_to_divide_the_width():
    with pytest.raises(ConfigError, match="3 heads do not divide a width of 8"):
        AttentionFusion(AttentionConfig(heads=3), width=8, count=2)
