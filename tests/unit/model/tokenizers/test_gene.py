"""Tokens of single features."""

from __future__ import annotations

import torch

from foundation.modality import OmicsModality
from foundation.model.tokenizers.gene import GeneConfig, GeneTokenizer

FEATURES = {
    "rna": OmicsModality(features=("A", "B", "C"), values="continuous"),
    "mutation": OmicsModality(features=("C", "D"), values="binary"),
}


def test_a_token_is_identity_modality_and_value():
    torch.manual_seed(0)
    tokenizer = GeneTokenizer(GeneConfig(), FEATURES, 4)
    omics = {"rna": torch.tensor([[0.5, -4.0, 2.0]]), "mutation": torch.tensor([[1.0, 0.0]])}
    observed = {name: torch.ones_like(values, dtype=torch.bool) for name, values in omics.items()}
    embedding = tokenizer.embedding
    expected = torch.cat(
        [
            torch.einsum("bfr,frd->bfd", embedding.basis(m, omics[m], observed[m]), embedding.loadings(m))
            + embedding.modality.weight[position]
            for position, m in enumerate(FEATURES)
        ],
        dim=1,
    )
    got = tokenizer(omics, observed).take(torch.zeros(1, dtype=torch.int64), torch.tensor([[4, 2, 0, 1, 3]]))
    assert torch.allclose(got, expected[:, [4, 2, 0, 1, 3]], atol=1e-6)
    assert tokenizer.modality_S.tolist() == [0, 0, 0, 1, 1]
