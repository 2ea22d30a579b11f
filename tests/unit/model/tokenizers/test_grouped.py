"""Tokens of groups of features: chunks and gene sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundation.config import load_config
from foundation.errors import ConfigError
from foundation.modality import OmicsModality
from foundation.model.tokenizers.chunk import ChunkConfig, ChunkTokenizer
from foundation.model.tokenizers.grouped import GroupSum
from foundation.model.tokenizers.pathway import PathwayConfig, PathwayTokenizer

NAMES = ("E", "D", "C", "B", "A")


def members(tokenizer, modality=0):
    """Positions of the features of each token of one modality, from what the tokens depend on."""
    name = tokenizer.embedding.modalities[modality]
    size = len(NAMES)
    values = torch.zeros(size, size)
    observed = torch.eye(size, dtype=torch.bool)
    real = tokenizer({name: values}, {name: observed}).real_BS
    return [torch.where(real[:, token])[0].tolist() for token in range(real.shape[1])]


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31), st.booleans())
def test_sums_over_groups_equal_a_dense_sum(features, count, seed, weighted):
    random = np.random.default_rng(seed)
    groups = [random.permutation(features)[: random.integers(1, features + 1)].tolist() for _ in range(count)]
    module = GroupSum(groups, features, weighted)
    basis, loadings = (
        torch.tensor(random.normal(size=(3, features, 2))),
        torch.tensor(random.normal(size=(features, 2, 4))),
    )
    expected = np.stack([np.einsum("bfr,frd->bd", basis[:, g].numpy(), loadings[g].numpy()) for g in groups], axis=1)
    np.testing.assert_allclose(module(basis, loadings).detach().numpy(), expected, atol=1e-10)
    observed = torch.tensor(random.random((3, features)) < 0.5)
    expected = np.stack([observed[:, g].numpy().sum(1) for g in groups], axis=1)
    np.testing.assert_array_equal(module.count(observed).numpy(), expected)


def test_memberships_are_weighted_one_by_one():
    module = GroupSum([[0, 1], [1, 2, 0], [2]], 3, weighted=True).double()
    basis, loadings = torch.rand(2, 3, 2).double(), torch.rand(3, 2, 4).double()
    with torch.no_grad():
        for weight in module.weights:
            weight.copy_(torch.arange(1, 1 + weight.numel()).reshape(weight.shape))
    # Sorted by size in powers of two: [2], then [0, 1], then [1, 2, 0] padded to nothing.
    expected = [[(0, 1.0), (1, 2.0)], [(1, 1.0), (2, 2.0), (0, 3.0)], [(2, 1.0)]]
    dense = torch.einsum("bfr,frd->bfd", basis, loadings)
    expected = torch.stack([sum(dense[:, f] * w for f, w in group) for group in expected], dim=1)
    assert torch.allclose(module(basis, loadings), expected)


def test_a_token_is_the_mean_of_the_observed_times_the_root_of_the_size():
    torch.manual_seed(0)
    tokenizer = ChunkTokenizer(ChunkConfig(size=4), {"rna": OmicsModality(features=NAMES, values="continuous")}, 6)
    values, observed = torch.randn(1, 5) * 3, torch.tensor([[True, False, True, True, False]])
    made = tokenizer({"rna": values}, {"rna": observed})
    embedding = tokenizer.embedding
    dense = torch.einsum("bfr,frd->bfd", embedding.basis("rna", values, observed), embedding.loadings("rna"))
    expected = dense[:, [0, 2, 3]].mean(1) * 2 + embedding.modality.weight[0]
    got = made.take(torch.tensor([0]), torch.tensor([[0]]))[:, 0]
    assert torch.allclose(got, expected, atol=1e-6)
    assert made.real_BS.tolist() == [[True, False]]


def test_chunks_follow_the_vocabulary_and_the_last_may_be_short():
    tokenizer = ChunkTokenizer(ChunkConfig(size=2), {"rna": OmicsModality(features=NAMES, values="continuous")}, 4)
    assert members(tokenizer) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("rest", "expected"), [("chunk", [[2, 4], [0, 1]]), ("gene", [[4], [2], [0], [1]])])
def test_features_in_no_set_have_tokens_of_their_own(rest, expected):
    """Ordered by name, which the vocabulary here is not."""
    names = ("Y", "Z", "C", "B", "A")
    config = PathwayConfig(sets={"T": ["B", "?", "B"], "S": ["B"], "U": ["?"]}, rest=rest, rest_size=2)
    tokenizer = PathwayTokenizer(config, {"rna": OmicsModality(features=names, values="continuous")}, 4)
    assert members(tokenizer) == [[3], [3], *expected]
    assert tokenizer.root_of_size_S[:2].tolist() == [1, 1]


def test_the_order_of_the_sets_does_not_matter():
    sets = {"T": ["A", "B"], "S": ["C"]}
    features = {"rna": OmicsModality(features=NAMES, values="continuous")}
    tokens = [
        members(PathwayTokenizer(PathwayConfig(sets=s), features, 4)) for s in (sets, dict(reversed(sets.items())))
    ]
    assert tokens[0] == tokens[1] == [[2], [3, 4], [0, 1]]


def test_sets_from_a_file_are_those_written_out(tmp_path):
    (tmp_path / "sets.gmt").write_text("S\tna\tA\tC\nT\tna\tB\n", encoding="utf-8")
    (tmp_path / "part.yaml").write_text("tokenizer: pathway\ngene_sets: sets.gmt\n", encoding="utf-8")
    config = load_config(PathwayConfig, tmp_path / "part.yaml")
    resolved = PathwayTokenizer.self_contained(config)
    assert resolved == PathwayConfig(sets={"S": ["A", "C"], "T": ["B"]})
    features = {"rna": OmicsModality(features=NAMES, values="continuous")}
    assert members(PathwayTokenizer(config, features, 4)) == members(PathwayTokenizer(resolved, features, 4))


def test_sets_that_know_no_feature_are_refused():
    with pytest.raises(ConfigError, match=r"rna is in any gene set, for example 'E'"):
        PathwayTokenizer(
            PathwayConfig(sets={"S": ["X"]}), {"rna": OmicsModality(features=NAMES, values="continuous")}, 4
        )


@pytest.mark.parametrize("settings", [{}, {"sets": {"S": ["A"]}, "gene_sets": "a.gmt"}])
def test_sets_come_from_one_place(settings):
    with pytest.raises(ValidationError, match="give either gene_sets or sets"):
        PathwayConfig(**settings)
