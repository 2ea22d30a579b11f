"""What every registered tokenizer keeps to."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

import foundation.model.tokenizers  # noqa: F401
from foundation.modality import OmicsModality
from foundation.model.tokenizers.base import tokenizers
from foundation.model.towers.base import count_parameters

WIDTH = 8
RECORDS = 5
GENES = ("EGFR", "IDH1", "TP53", "CDK4", "RB1", "PTEN", "ATRX", "NF1")
FEATURES = {
    "rna": OmicsModality(features=GENES, values="continuous"),
    "cnv": OmicsModality(features=GENES[2:], values="ordinal"),
    "mutation": OmicsModality(features=GENES[:5], values="binary"),
    "clinical": OmicsModality(features=("age",), values="count"),
}
BF16_TOLERANCE = 0.03
"""Of the largest fp32 value: bf16 keeps 8 bits, so a sum of rounded products is off by about 1 % of it."""


def build(name):
    torch.manual_seed(0)
    return tokenizers.build(tokenizers[name].tiny(), FEATURES, WIDTH)


def data(seed=1):
    """Values, observed; the first record lacks a whole modality."""
    generator = torch.Generator().manual_seed(seed)
    omics, observed = {}, {}
    for name, features in FEATURES.items():
        shape = (RECORDS, len(features.features))
        values = torch.randn(shape, generator=generator) * 3
        omics[name] = (values > 0).float() if features.values == "binary" else values
        observed[name] = torch.rand(shape, generator=generator) < 0.7
    observed["rna"][0] = False
    observed["cnv"][1] = True
    return omics, observed


def tokens(tokenizer, omics, observed):
    """All possible tokens [B, S, D], zeros where not real, and real [B, S]."""
    made = tokenizer(omics, observed)
    records, count = made.real_BS.shape
    vectors = made.take(torch.arange(records), torch.arange(count).expand(records, count))
    return torch.where(made.real_BS[..., None], vectors, 0), made.real_BS


def target(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def gradients(module, loss):
    module.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def with_garbage(omics, observed, garbage):
    return {name: torch.where(observed[name], values, garbage) for name, values in omics.items()}


each_tokenizer = pytest.mark.parametrize("name", tokenizers.names())


@each_tokenizer
def test_shapes_and_modalities(name):
    tokenizer = build(name)
    vectors, real = tokens(tokenizer, *data())
    assert vectors.shape == (RECORDS, tokenizer.possible_tokens, WIDTH)
    assert real.shape == (RECORDS, tokenizer.possible_tokens) and real.dtype == torch.bool
    assert tokenizer.modality_S.shape == (tokenizer.possible_tokens,)
    assert sorted(set(tokenizer.modality_S.tolist())) == list(range(len(FEATURES)))


@each_tokenizer
def test_tokens_are_real_exactly_where_their_modality_was_observed(name):
    tokenizer = build(name)
    omics, observed = data()
    real = tokens(tokenizer, omics, observed)[1]
    for position, modality in enumerate(FEATURES):
        here = tokenizer.modality_S == position
        assert torch.equal(real[:, here].any(1), observed[modality].any(1))
    everything = {modality: torch.ones_like(mask) for modality, mask in observed.items()}
    assert tokens(tokenizer, omics, everything)[1].all()


@each_tokenizer
def test_every_observed_feature_matters_and_only_those(name):
    tokenizer = build(name)
    omics, observed = data()
    omics = {modality: values.requires_grad_() for modality, values in omics.items()}
    vectors, _ = tokens(tokenizer, omics, observed)
    (vectors * target(vectors.shape)).sum().backward()
    for modality, values in omics.items():
        assert torch.equal(values.grad != 0, observed[modality])


@each_tokenizer
def test_only_observed_features_are_learned_from(name):
    tokenizer = build(name)
    omics, observed = data()
    observed = {modality: torch.zeros_like(mask) for modality, mask in observed.items()}
    observed["rna"][:, 2] = True
    observed["mutation"][:, 3] = True
    vectors, _ = tokens(tokenizer, omics, observed)
    learned = gradients(tokenizer, (vectors * target(vectors.shape)).sum())
    assert learned["embedding.identity.weight"].any(1).nonzero().flatten().tolist() == [2, 3]
    assert learned["embedding.modality.weight"].any(1).tolist() == [True, False, True, False]


@each_tokenizer
def test_a_measured_zero_is_not_an_absence(name):
    tokenizer = build(name)
    omics, observed = data()
    zeros = {modality: torch.zeros_like(values) for modality, values in omics.items()}
    for modality, mask in observed.items():
        measured = {**observed, modality: torch.ones_like(mask)}
        missing = {**observed, modality: torch.ones_like(mask)}
        missing[modality][:, 0] = False
        assert not torch.equal(tokens(tokenizer, zeros, measured)[0], tokens(tokenizer, zeros, missing)[0])


@each_tokenizer
def test_the_same_gene_in_two_modalities_shares_its_identity(name):
    embedding = build(name).embedding
    rna, cnv = embedding.identities("rna"), embedding.identities("cnv")
    assert rna.shape == (len(GENES), WIDTH)
    assert torch.equal(rna[2:], cnv) and not torch.allclose(rna[0], rna[1])


@each_tokenizer
def test_gradients_reach_every_parameter(name):
    tokenizer = build(name)
    vectors, _ = tokens(tokenizer, *data())
    for parameter, gradient in gradients(tokenizer, (vectors * target(vectors.shape)).sum()).items():
        assert gradient.isfinite().all() and gradient.any(), parameter


@each_tokenizer
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_garbage_where_not_observed_changes_no_bit(name, garbage):
    tokenizer = build(name)
    omics, observed = data()
    expected, real = tokens(tokenizer, omics, observed)
    got, got_real = tokens(tokenizer, with_garbage(omics, observed, garbage), observed)
    assert torch.equal(got, expected) and torch.equal(got_real, real)
    clean = gradients(tokenizer, (expected * target(expected.shape)).sum())
    dirty = gradients(tokenizer, (got * target(got.shape)).sum())
    assert all(torch.equal(clean[key], dirty[key]) for key in clean)


@each_tokenizer
def test_a_record_is_the_same_whoever_else_is_in_the_batch(name):
    tokenizer = build(name)
    omics, observed = data()
    order = torch.tensor([3, 0, 4, 2, 1])
    expected, real = tokens(tokenizer, omics, observed)
    shuffled, shuffled_real = tokens(
        tokenizer, {m: v[order] for m, v in omics.items()}, {m: v[order] for m, v in observed.items()}
    )
    assert torch.allclose(shuffled, expected[order], atol=1e-6) and torch.equal(shuffled_real, real[order])
    alone, _ = tokens(tokenizer, {m: v[2:3] for m, v in omics.items()}, {m: v[2:3] for m, v in observed.items()})
    assert torch.allclose(alone, expected[2:3], atol=1e-6)


@each_tokenizer
def test_taking_some_tokens_gives_those(name):
    tokenizer = build(name)
    made = tokenizer(*data())
    records, count = made.real_BS.shape
    whole = made.take(torch.arange(records), torch.arange(count).expand(records, count))
    rows, index = torch.tensor([4, 4, 1]), torch.tensor([[0, count - 1], [1, 2], [2, 0]])
    assert torch.allclose(made.take(rows, index), whole[rows[:, None], index], atol=1e-6)


@each_tokenizer
def test_saved_and_loaded_gives_the_same_bits(name):
    tokenizer = build(name)
    torch.manual_seed(99)
    other = tokenizers.build(tokenizers[name].self_contained(tokenizers[name].tiny()), FEATURES, WIDTH)
    expected = tokens(tokenizer, *data())[0]
    assert not torch.equal(tokens(other, *data())[0], expected)
    other.load_state_dict(load(save(tokenizer.state_dict())))
    assert torch.equal(tokens(other, *data())[0], expected)


@each_tokenizer
def test_repeats_itself(name):
    tokenizer = build(name)
    assert torch.equal(tokens(tokenizer, *data())[0], tokens(tokenizer, *data())[0])


@each_tokenizer
def test_bf16_is_close_to_fp32(name):
    tokenizer = build(name)
    expected, _ = tokens(tokenizer, *data())
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = tokens(tokenizer, *data())
    assert (got.float() - expected).abs().max() <= BF16_TOLERANCE * expected.abs().max()


@each_tokenizer
def test_its_parameters_are_counted(name):
    tokenizer = build(name)
    identities = (len(GENES) + 1) * WIDTH + len(FEATURES) * WIDTH
    slopes = (3 + 3 + 1 + 3) * (WIDTH * WIDTH + WIDTH)
    counted = count_parameters(tokenizer)
    assert counted["total"] == counted["trainable"]
    assert identities + slopes <= counted["total"] <= identities + slopes + 100
