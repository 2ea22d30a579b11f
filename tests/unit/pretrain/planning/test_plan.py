"""A plan against what can be counted by hand, and against a step that is really made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foundation.data.batch import Batch
from foundation.errors import ConfigError
from foundation.modality import ImageModality, OmicsModality
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from pretrain.config import PretrainConfig
from pretrain.planning.cohort import Cohort
from pretrain.planning.plan import make_plan, plan_of
from pretrain.step import Logged, Pretraining, Step

LARGE = Path(__file__).parents[4] / "configs" / "pretrain" / "ct-large.yaml"
GENES = [f"g{i}" for i in range(40)]
SMALL = Cohort(
    100,
    {
        "mri": ImageModality(channels=["a", "b"], shape=[16, 16, 4]),
        "rna": OmicsModality(features=GENES, values="continuous"),
        "mutation": OmicsModality(features=GENES[:10], values="binary"),
    },
)


def small_config(**changes) -> PretrainConfig:
    vit = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    document = {
        "cohort": "nowhere",
        "out": "nowhere",
        "towers": {
            "mri": {"tower": "vit2d", "arguments": vit, "max_slices": 2},
            "omics": {"tower": "omics_transformer", "tokenizer": {"tokenizer": "chunk", "size": 8}, "width": 32},
        },
        "fusion": {"fusion": "gated_mean"},
        "objectives": {
            "contrast": {"loss": {"objective": "infonce"}},
            "masked": {"loss": {"objective": "masked_omics"}, "weight": 0.3},
        },
        "width": 16,
        "batch_size": 8,
        **changes,
    }
    return PretrainConfig.model_validate(document)


def real_operations(config: PretrainConfig, records: int) -> float:
    """Operations per record of one real step, everybody complete."""
    settings = MultimodalConfig.of(SMALL.modalities, config.towers, config.fusion, config.width)
    names = [str(i) for i in range(records)]
    batch = Batch(
        modalities=("mri", "rna", "mutation"),
        patients=names,
        records=names,
        rows=torch.arange(records),
        # An epoch in which each side of each chunk is dealt some rna, whose tokens are what a plan counts with.
        epochs=torch.zeros(records, dtype=torch.int64),
        present_BM=torch.ones(records, 3, dtype=torch.bool),
        images={"mri": torch.randn(records, 2, 16, 16, 4)},
        channels={"mri": torch.ones(records, 2, dtype=torch.bool)},
        omics={"rna": torch.randn(records, 40), "mutation": torch.ones(records, 10)},
        observed={"rna": torch.ones(records, 40, dtype=torch.bool), "mutation": torch.ones(records, 10).bool()},
        endpoints={},
        sites=[""] * records,
        groups=[""] * records,
    )
    module = Pretraining.of(config, MultimodalModel(settings)).train()
    with FlopCounterMode(display=False) as counter:
        for loss in Step(module, chunk_size=config.chunk_size).losses(batch, Logged()):
            loss.backward()
    return counter.get_total_flops() / records


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_the_operations_of_a_plan_are_those_of_a_real_step(precision):
    config = small_config(precision=precision)
    found = plan_of(config, SMALL).operations
    assert found.forward_and_backward == found.step == real_operations(config, 8)


def test_a_cached_step_embeds_twice():
    whole, cached = (plan_of(small_config(chunk_size=size), SMALL) for size in (None, 4))
    assert cached.operations.step == cached.operations.forward_and_backward + cached.operations.forward
    # Vectors of features are made once per chunk, whatever its size.
    assert cached.operations.forward == pytest.approx(whole.operations.forward, rel=0.05)
    # But for the scores of the contrast, which are of a chunk with itself here and of the whole batch there.
    assert cached.operations.step == pytest.approx(real_operations(small_config(chunk_size=4), 8), rel=1e-3)
    held = {name: found.scales[0].activations for name, found in (("cached", cached), ("whole", whole))}
    assert held["cached"].records_at_once == 4
    assert held["cached"].configured < 0.7 * held["whole"].configured


def test_gpus_share_the_batch_and_sharded_the_weights():
    one, four = (plan_of(small_config(), SMALL, [gpus]) for gpus in (1, 4))
    assert [plan.scales[0].activations.records_at_once for plan in (one, four)] == [8, 2]
    assert (four.steps, four.samples) == (300, 2400)
    assert four.operations_of_run == 2400 * four.operations.step
    with pytest.raises(ConfigError, match="a batch of 8 cannot give each of 9 GPUs a record"):
        plan_of(small_config(), SMALL, [9])


def test_an_objective_may_choose_tokens_by_a_mask(monkeypatch):
    from foundation.objectives.masked_omics import MaskedOmics

    forward = MaskedOmics.forward

    def of_chosen(self, seen, batch):
        loss = forward(self, seen, batch)
        chosen = seen["masked"].z_BD[torch.arange(len(batch)) % 2 == 0]
        loss.value = loss.value + self.trunk(chosen).sum()
        return loss

    before = plan_of(small_config(), SMALL).operations.forward_and_backward
    monkeypatch.setattr(MaskedOmics, "forward", of_chosen)
    config = small_config()
    found = plan_of(config, SMALL).operations.forward_and_backward
    assert found == real_operations(config, 8)
    assert found - before == 3 * 2 * 16 * 64 / 2


@pytest.fixture(scope="module")
def large():
    return make_plan(LARGE, gpus=[64])


WIDTH, DEPTH, SLICES, CHUNK = 1024, 24, 32, 16
TOKENS = (256 // 16) ** 2 + 1


def test_ct_large_has_the_parameters_of_a_vit_l(large):
    block = 12 * WIDTH**2 + 13 * WIDTH
    vit = DEPTH * block + (16 * 16 + 1) * WIDTH + (TOKENS + 1) * WIDTH + 2 * WIDTH
    assert vit == pytest.approx(303e6, rel=0.005)
    mask_tokens = 1 + WIDTH + 16 * 16
    pool = 4 * WIDTH**2 + 3 * WIDTH + 3 * WIDTH
    assert large.parameters["ct"] == vit + mask_tokens + pool + WIDTH**2
    genes, width = 20_000, 768
    omics = 12 * (12 * width**2 + 13 * width) + genes * width + 3 * width
    slopes = (3 + 3 + 1 + 3) * (width**2 + width)
    assert large.parameters["omics"] == omics + slopes + 4 * width
    assert large.parameters["total"] == sum(n for name, n in large.parameters.items() if name != "total")


def test_ct_large_does_the_operations_of_a_vit_l_on_each_slice_once(large):
    matrices = 2 * TOKENS * 12 * WIDTH**2 + 4 * TOKENS**2 * WIDTH
    slice_ = DEPTH * matrices + 2 * (TOKENS - 1) * 16 * 16 * WIDTH
    found = large.operations
    # The contrast and the fused view show the scan alike, so it is embedded once; the rest is the pooling of slices.
    assert found.towers["ct"] == pytest.approx(SLICES * slice_, rel=1e-3)
    # The backward pass of a product is two products; attention makes its scores once more.
    assert found.forward_and_backward == pytest.approx(3 * found.forward, rel=0.03)
    blocks = DEPTH * matrices * SLICES
    assert found.step == pytest.approx(found.forward_and_backward + found.forward + blocks, rel=0.25)
    assert found.step > found.forward_and_backward + found.forward


def test_ct_large_needs_the_memory_that_a_formula_predicts(large):
    memory, total = large.scales[0].strategies["ddp"].memory, large.parameters["total"]
    assert (memory.weights, memory.gradients, memory.optimiser) == (4 * total, 4 * total, 8 * total)
    activations = large.scales[0].activations
    # Image tokens in 24 blocks; in 12 blocks the omics tokens of a whole view, of two halves, and of the masked view.
    values = CHUNK * (SLICES * TOKENS * WIDTH * (DEPTH - 1) + 3 * 1253 * 768 * (12 - 1))
    # Korthikanti et al. 2022 (arXiv:2205.05198) count 34 bytes per token, width and block, 5 of them for dropout and
    # the norms' inputs at half the precision of ours. Checkpointing keeps a block's input, 4 bytes, but in one block.
    freed = activations.kept - activations.checkpointed
    assert freed == pytest.approx((34 - 4) * values, rel=0.2)
    assert memory.activations == activations.configured == activations.checkpointed
    assert memory.fits == {24: False, 40: True, 80: True, 141: True}
