"""The transformer over omics tokens."""

from __future__ import annotations

import json
import resource

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from foundation.config import load_config
from foundation.modality import OmicsModality
from foundation.model.layers.values import masked
from foundation.model.tokenizers.base import tokenizers
from foundation.model.tokenizers.pathway import PathwayConfig
from foundation.model.towers.base import count_parameters
from foundation.model.towers.omics_transformer import OmicsTransformer, OmicsTransformerConfig

GENES = ("EGFR", "IDH1", "TP53", "CDK4", "RB1", "PTEN", "ATRX")
# Not in alphabetical order, as JSON files are.
FEATURES = {
    "rna": OmicsModality(features=GENES, values="continuous"),
    "mutation": OmicsModality(features=GENES[:4], values="binary"),
    "clinical": OmicsModality(features=("age", "grade"), values="continuous"),
}
RECORDS = 6
BF16_TOLERANCE = 0.06
"""On vectors whose entries have variance 1: each of 2 blocks rounds to 8 bits about ten times."""
LENGTH_TOLERANCE = 1e-5
"""Between paddings of different length, which are summed in another order."""

each_tokenizer = pytest.mark.parametrize("tokenizer", tokenizers.names())


def build(tokenizer="gene", seed=0, **changes):
    torch.manual_seed(seed)
    config = OmicsTransformer.tiny().model_copy(update={"tokenizer": tokenizers[tokenizer].tiny(), **changes})
    return OmicsTransformer(config, FEATURES).eval()


def data(seed=1):
    generator = torch.Generator().manual_seed(seed)
    omics, observed = {}, {}
    for name, features in FEATURES.items():
        shape = (RECORDS, len(features.features))
        omics[name] = torch.randn(shape, generator=generator) * 2
        observed[name] = torch.rand(shape, generator=generator) < 0.7
    observed["rna"][0] = False
    observed["rna"][:, 0] |= ~torch.cat(list(observed.values()), dim=1).any(1)
    return omics, observed


def rows(mapping, index):
    return {name: values[index] for name, values in mapping.items()}


def draws(tower, seed=3):
    return torch.rand(RECORDS, tower.possible_tokens, generator=torch.Generator().manual_seed(seed))


def gradients(tower, seen):
    tower.zero_grad()
    tokens = torch.where(seen.real_BT[..., None], seen.tokens_BTD, 0)
    generator = torch.Generator().manual_seed(5)
    loss = (seen.pooled_BD * torch.randn(seen.pooled_BD.shape, generator=generator)).sum() + tokens.square().sum()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in tower.named_parameters()}


@each_tokenizer
@pytest.mark.parametrize("training", [True, False])
def test_shapes_and_modalities(tokenizer, training):
    tower = build(tokenizer)
    omics, observed = data()
    seen = tower(omics, observed, draws(tower) if training else None)
    tokens = seen.tokens_BTD.shape[1]
    assert seen.pooled_BD.shape == (RECORDS, tower.width) and seen.tokens_BTD.shape[::2] == (RECORDS, tower.width)
    assert seen.real_BT.shape == (RECORDS, tokens)
    modality = seen.modality_T.expand(RECORDS, tokens)
    if training:
        assert tokens <= tower.max_tokens
    for position, name in enumerate(FEATURES):
        there = (seen.real_BT & (modality == position)).any(1)
        assert not (there & ~observed[name].any(1)).any()


@pytest.mark.parametrize("max_tokens", [3, 8, 100])
def test_a_full_pass_shows_every_observed_feature_once(max_tokens):
    omics, observed = data()
    seen = build(max_tokens=max_tokens)(omics, observed)
    assert torch.equal(seen.real_BT.sum(1), torch.cat(list(observed.values()), dim=1).sum(1))
    modality = seen.modality_T.expand_as(seen.real_BT)
    for position, name in enumerate(FEATURES):
        assert torch.equal((seen.real_BT & (modality == position)).sum(1), observed[name].sum(1))


@pytest.mark.parametrize("tokenizer", ["gene", "chunk"])
@pytest.mark.parametrize("max_tokens", [3, 8, 100])
def test_a_full_pass_is_the_weighted_mean_of_its_sequences(tokenizer, max_tokens):
    tower = build(tokenizer, max_tokens=max_tokens)
    omics, observed = data()
    seen = tower(omics, observed)
    made = tower.tokenizer(omics, observed)
    for row in range(RECORDS):
        there = torch.where(made.real_BS[row])[0]
        count = -(-len(there) // max_tokens)
        pooled = torch.zeros(tower.width)
        for part in (there[first::count] for first in range(count)):
            x = made.take(torch.tensor([row]), part[None])
            x = torch.cat([tower.summary.expand(1, 1, -1), x], dim=1)
            for block in tower.blocks:
                x = block(x, torch.ones(1, x.shape[1], dtype=torch.bool))
            x = tower.norm(x)[0]
            pooled = pooled + (x[0] + x[1:].mean(0)) * len(part) / len(there)
        assert torch.allclose(seen.pooled_BD[row], pooled, atol=LENGTH_TOLERANCE)


def test_draws_decide_what_is_kept():
    tower = build(max_tokens=3)
    omics, observed = data()
    some = [tower(omics, observed, draws(tower, seed)).pooled_BD for seed in (3, 3, 4)]
    assert torch.equal(some[0], some[1]) and not torch.allclose(some[0], some[2], atol=1e-3)
    roomy = build(max_tokens=100)
    assert torch.equal(roomy(omics, observed, draws(roomy)).pooled_BD, roomy(omics, observed).pooled_BD)


@each_tokenizer
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(tokenizer, training):
    tower = build(tokenizer, max_tokens=4)
    for name, gradient in gradients(tower, tower(*data(), draws(tower) if training else None)).items():
        # A softmax does not see what is added to all keys alike.
        assert gradient.isfinite().all() and (gradient.any() or name.endswith("key.bias")), name


@each_tokenizer
@pytest.mark.parametrize("max_tokens", [3, 100])
@pytest.mark.parametrize("training", [True, False])
def test_garbage_where_not_observed_changes_no_bit(tokenizer, max_tokens, training):
    tower = build(tokenizer, max_tokens=max_tokens)
    omics, observed = data()
    drawn = draws(tower) if training else None
    clean = tower(omics, observed, drawn)
    dirty = tower({m: torch.where(observed[m], v, torch.nan) for m, v in omics.items()}, observed, drawn)
    assert torch.equal(clean.pooled_BD, dirty.pooled_BD) and torch.equal(clean.real_BT, dirty.real_BT)
    real = clean.real_BT[..., None]
    assert torch.equal(masked(clean.tokens_BTD, real), masked(dirty.tokens_BTD, real))
    expected, got = gradients(tower, clean), gradients(tower, dirty)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@each_tokenizer
@pytest.mark.parametrize("max_tokens", [3, 100])
def test_a_record_is_the_same_whoever_else_is_in_the_batch(tokenizer, max_tokens):
    tower = build(tokenizer, max_tokens=max_tokens)
    omics, observed = data()
    pooled = tower(omics, observed).pooled_BD
    order = torch.tensor([4, 0, 5, 3, 1, 2])
    shuffled = tower(rows(omics, order), rows(observed, order)).pooled_BD
    assert torch.allclose(shuffled, pooled[order], atol=LENGTH_TOLERANCE)
    for row in range(RECORDS):
        alone = tower(rows(omics, [row]), rows(observed, [row])).pooled_BD
        assert torch.allclose(alone, pooled[row], atol=LENGTH_TOLERANCE)


def test_a_record_without_tokens_is_finite():
    tower = build()
    omics, observed = data()
    nothing = {name: torch.zeros_like(mask) for name, mask in observed.items()}
    seen = tower(omics, nothing)
    assert seen.pooled_BD.isfinite().all() and not seen.real_BT.any()
    assert all(gradient.isfinite().all() for gradient in gradients(tower, seen).values())


def test_dropout_acts_in_training_alone():
    tower = build(dropout=0.5)
    omics, observed = data()
    assert torch.equal(tower(omics, observed).pooled_BD, tower(omics, observed).pooled_BD)
    tower.train()
    assert not torch.equal(tower(omics, observed).pooled_BD, tower(omics, observed).pooled_BD)


@each_tokenizer
def test_a_saved_tower_comes_back_with_the_same_bits(tokenizer, tmp_path):
    tower = build(tokenizer, dropout=0.1)
    tower.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    torch.manual_seed(8)
    other, report = OmicsTransformer.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert torch.equal(other(*data()).pooled_BD, tower(*data()).pooled_BD)
    assert [block.dropout.p for block in other.blocks] == [0.1, 0.1]
    state = other.state_dict()
    assert all(torch.equal(state[name], value) for name, value in tower.state_dict().items())


def test_a_saved_tower_needs_no_gene_set_file(tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("Z\tna\tTP53\tRB1\nA\tna\tEGFR\tIDH1\tPTEN\n", encoding="utf-8")
    tower = build()
    config = OmicsTransformer.tiny().model_copy(update={"tokenizer": PathwayConfig(gene_sets=sets)})
    tower = OmicsTransformer(config, FEATURES).eval()
    tower.save_pretrained(tmp_path / "model")
    sets.unlink()
    assert "sets.gmt" not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    other = OmicsTransformer.from_pretrained(tmp_path / "model")
    assert torch.equal(other(*data()).pooled_BD, tower(*data()).pooled_BD)


def starts(tower):
    """Standard deviations of what a new tower draws."""
    embedding = tower.tokenizer.embedding
    drawn = [tower.summary, embedding.identity.weight, embedding.slopes[0].weight, tower.blocks[0].up.weight]
    return [parameter.std().item() for parameter in drawn]


@pytest.mark.parametrize("saved", [False, True])
def test_weights_start_at_their_scale_also_where_a_saved_tower_lacks_them(saved, tmp_path):
    tower = build()
    if saved:
        tower.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        lacking = [
            "summary",
            "blocks.0.up.weight",
            *(f"tokenizer.embedding.{n}.weight" for n in ("identity", "slopes.0")),
        ]
        kept = {name: value for name, value in weights.items() if name not in lacking}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        tower, report = OmicsTransformer.from_pretrained(tmp_path, output_loading_info=True)
        assert sorted(report["missing_keys"]) == sorted(lacking)
    # Identities have a length of about one in a width of 16; the transformer's own maps start small.
    assert starts(tower) == pytest.approx([0.02, 0.25, 0.25, 0.02], rel=0.35)


def test_config_json_is_plain(tmp_path):
    build().save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert document["model_type"] == "chiasma_omics_transformer"
    assert [name for name, _ in document["features"]] == list(FEATURES)
    assert document["part"]["tokenizer"] == {"tokenizer": "gene"}


def test_bf16_is_close_to_fp32():
    for max_tokens in (3, 100):
        tower = build(max_tokens=max_tokens)
        expected = tower(*data()).pooled_BD
        with torch.autocast("cpu", torch.bfloat16):
            got = tower(*data()).pooled_BD
        assert (got.float() - expected).abs().max() <= BF16_TOLERANCE


@each_tokenizer
def test_weights_may_be_bf16_and_values_fp32(tokenizer):
    tower = build(tokenizer)
    expected = tower(*data()).pooled_BD
    got = tower.to(torch.bfloat16)(*data()).pooled_BD
    assert (got.float() - expected).abs().max() <= BF16_TOLERANCE


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it.
def test_lora_finds_every_projection():
    from peft import LoraConfig, get_peft_model

    tower = build()
    before = tower(*data()).pooled_BD
    adapted = get_peft_model(tower, LoraConfig(target_modules=["query", "key", "value", "out"], r=2))
    names = {name for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert len(names) == 2 * 4
    assert torch.allclose(adapted(*data()).pooled_BD, before, atol=1e-6)


def test_its_parameters_are_counted():
    tower = build()
    width, hidden = 16, 32
    identities = (len(GENES) + 2 + len(FEATURES)) * width
    slopes = (3 + 1 + 3) * (width * width + width)
    block = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
    expected = identities + slopes + width + 2 * block + 2 * width
    assert count_parameters(tower) == {"total": expected, "trainable": expected}


def test_it_can_be_built_without_memory():
    with torch.device("meta"):
        tower = OmicsTransformer(OmicsTransformer.tiny(), FEATURES)
    assert count_parameters(tower) == count_parameters(build())


def test_twenty_thousand_genes_train_and_evaluate_within_a_gigabyte():
    names = tuple(f"G{i}" for i in range(20_000))
    config = OmicsTransformerConfig(tokenizer=tokenizers["gene"].tiny(), width=8, depth=1, heads=1, max_tokens=512)
    torch.manual_seed(0)
    tower = OmicsTransformer(config, {"rna": OmicsModality(features=names, values="continuous")})
    omics, observed = {"rna": torch.randn(2, 20_000)}, {"rna": torch.rand(2, 20_000) < 0.9}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = tower(omics, observed, torch.rand(2, 20_000))
    assert seen.tokens_BTD.shape == (2, 512, 8) and seen.real_BT.all()
    seen.pooled_BD.sum().backward()
    with torch.no_grad():
        full = tower(omics, observed)
    assert torch.equal(full.real_BT, observed["rna"]) and full.pooled_BD.isfinite().all()
    # One attention over all 20,000 tokens would hold 3.2 GB of weights for the two records.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_a_config_is_read_from_yaml(tmp_path):
    (tmp_path / "sets.gmt").write_text("A\tna\tEGFR\n", encoding="utf-8")
    text = "tower: omics_transformer\nwidth: 32\ntokenizer: {tokenizer: pathway, gene_sets: sets.gmt}\n"
    (tmp_path / "tower.yaml").write_text(text, encoding="utf-8")
    config = load_config(OmicsTransformerConfig, tmp_path / "tower.yaml")
    assert config.tokenizer == PathwayConfig(gene_sets=tmp_path / "sets.gmt") and config.width == 32


def test_heads_have_to_divide_the_width():
    with pytest.raises(ValidationError, match=r"heads \(3\) must divide width \(16\)"):
        OmicsTransformerConfig(tokenizer=tokenizers["gene"].tiny(), width=16, heads=3)
