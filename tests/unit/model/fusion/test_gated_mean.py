"""The gated mean, against its definition."""

from __future__ import annotations

import numpy as np
import torch

from foundation.model.fusion.gated_mean import GatedMean, GatedMeanConfig


def test_gates_are_a_softmax_over_what_is_present():
    torch.manual_seed(0)
    fusion = GatedMean(GatedMeanConfig(), width=4, count=3)
    with torch.no_grad():
        fusion.gate_MD.normal_()
        fusion.bias_M.normal_()
    z = torch.randn(4, 3, 4)
    present = torch.tensor([[True, True, True], [False, True, True], [True, False, False], [False, False, False]])
    got = fusion.join(torch.where(present[..., None], z, 0), present).detach().numpy()
    for row in range(3):
        chosen = present[row].numpy()
        score = (z[row].numpy() * fusion.gate_MD.detach().numpy()).sum(1) + fusion.bias_M.detach().numpy()
        gate = np.exp(score[chosen]) / np.exp(score[chosen]).sum()
        np.testing.assert_allclose(got[row], gate @ z[row].numpy()[chosen], atol=1e-6)
    assert not got[3].any()
