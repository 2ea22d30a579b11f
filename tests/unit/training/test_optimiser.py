"""Which parameters decay, how fast each layer learns, and the learning rate over a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from foundation.errors import ConfigError
from foundation.model.fusion.gated_mean import GatedMean
from foundation.model.towers.vit2d import ViT2D
from foundation.model.towers.vit3d import ViT3D
from foundation.objectives.contrastive.learned_scale import LearnedScale
from foundation.training.optimiser import OptimiserConfig, Paced, build_optimiser, learning_rate, set_learning_rate

SHAPE = (16, 16, 8)


def make(path: Path | None = None) -> nn.ModuleDict:
    """A tower that starts from a file if there is one, beside parts that never do."""
    config = ViT3D.tiny()
    if path is not None:
        save_file(ViT3D(config, 2, SHAPE).vit.state_dict(), path)
        config = config.model_copy(update={"weights": path})
    image, other = ViT3D(config, 2, SHAPE), ViT2D(ViT2D.tiny(), 2, SHAPE)
    fusion = GatedMean(GatedMean.tiny(), 8, 2)
    return nn.ModuleDict({"ct": image, "mri": other, "fusion": fusion, "scale": LearnedScale(10, 100)})


def settings(module: nn.Module, config: OptimiserConfig, key: str) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = build_optimiser(module, config).param_groups
    return {names[id(parameter)]: group[key] for group in groups for parameter in group["params"]}


def test_only_weights_that_multiply_decay():
    decay = settings(make(), OptimiserConfig(weight_decay=0.1), "weight_decay")
    kept = [name for name, value in decay.items() if value == 0]
    assert len(decay) == len(list(make().parameters()))
    assert {"ct.vit.patch_embedding.position_embeddings", "ct.mask_tokens.pattern_CD", "ct.pool.seed_D"} <= set(kept)
    assert {"scale.logarithm", "fusion.gate_MD", "mri.net.cls_token", "mri.net.pos_embed"} <= set(kept)
    assert all(name in kept for name in decay if name.endswith("bias") or "norm" in name)
    assert {"ct.vit.blocks.0.attn.qkv.weight", "mri.net.patch_embed.proj.weight", "ct.pool.query.weight"}.isdisjoint(
        kept
    )


def test_deeper_layers_of_a_pretrained_tower_learn_faster(tmp_path):
    factor = settings(make(tmp_path / "w.safetensors"), OptimiserConfig(layer_decay=0.5), "factor")
    assert factor["ct.vit.patch_embedding.position_embeddings"] == 0.5**4
    assert [factor[f"ct.vit.blocks.{block}.mlp.linear1.weight"] for block in range(3)] == [0.5**3, 0.5**2, 0.5]
    random = [name for name in factor if not name.startswith("ct.vit.")]
    assert random and {factor[name] for name in random} == {1.0}


def test_a_layer_decay_without_pretrained_weights_is_refused():
    with pytest.raises(ConfigError, match="no tower has pretrained weights"):
        build_optimiser(make(), OptimiserConfig(layer_decay=0.75))


def test_a_tower_has_its_own_rate_beside_that_of_its_layers(tmp_path):
    config = OptimiserConfig(layer_decay=0.5, tower_rates={"ct": 0.1, "mri": 0.2})
    factor = settings(make(tmp_path / "w.safetensors"), config, "factor")
    assert factor["ct.vit.blocks.2.mlp.linear1.weight"] == pytest.approx(0.05)
    assert {value for name, value in factor.items() if name.startswith("mri.")} == {0.2}
    assert factor["fusion.gate_MD"] == 1


def test_a_rate_for_no_tower_names_the_nearest():
    with pytest.raises(ConfigError, match="no tower is called 'mir'") as caught:
        build_optimiser(make(), OptimiserConfig(tower_rates={"mir": 0.1}))
    assert "mri" in str(caught.value)


def test_the_learning_rate_reaches_every_group_by_its_factor(tmp_path):
    optimiser = build_optimiser(make(tmp_path / "w.safetensors"), OptimiserConfig(layer_decay=0.5))
    set_learning_rate(optimiser, 0.2)
    assert all(group["lr"] == 0.2 * group["factor"] for group in optimiser.param_groups)


def test_frozen_parameters_are_left_out():
    module = make()
    module["mri"].requires_grad_(False)
    names = settings(module, OptimiserConfig(), "factor")
    assert names and not any(name.startswith("mri.") for name in names)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_is_fused_on_a_gpu():
    assert all(group["fused"] for group in build_optimiser(make().cuda(), OptimiserConfig()).param_groups)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_rate_rises_and_falls(schedule):
    config = OptimiserConfig(learning_rate=1.0, schedule=schedule, warm_up=0.1, decay=0.2)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.1
    assert schedule == "cosine" or rates[10:80] == [1.0] * 70


def test_a_module_that_knows_its_pace_learns_at_it():
    class Slow(Paced):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 1)
            self.pace = 0.25

    module = nn.ModuleDict({"slow": Slow(), "other": nn.Linear(2, 1)})
    optimiser = build_optimiser(module, OptimiserConfig())
    set_learning_rate(optimiser, 0.4)
    rates = {id(parameter): group["lr"] for group in optimiser.param_groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in module["slow"].parameters()} == {0.1}
    assert {rates[id(parameter)] for parameter in module["other"].parameters()} == {0.4}
