"""LoRA on layers: what is added to a convolution, what is left as it is, and towers that are convolutional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn

from finetune.methods import adapter
from finetune.methods.adapt import adapt
from finetune.methods.adapted import EVERYTHING, Adapted
from finetune.methods.heads import Head
from finetune.methods.lora import adapted_layers, alike, attach, merge, unsuited
from finetune.methods.modes import Frozen, Full, Lora
from finetune.methods.reading import Block
from finetune.tasks.base import Task, tasks
from foundation.data.batch import Batch
from foundation.data.preprocessing import ImageScaling, Preprocessing
from foundation.errors import ConfigError
from foundation.modality import Percentile
from foundation.model import model_folder
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients
from foundation.model.towers.base import towers
from foundation.model.view import FUSED, View

ROWS, SIDE, WIDTH = 4, 64, 8
KINDS = {"lora": Lora(rank=3), "dora": Lora(rank=3, dora=True), "rslora": Lora(rank=3, rslora=True)}
LAYERS = {
    "3 x 3": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "1 x 1": lambda: nn.Conv2d(4, 6, 1, bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "as large": lambda: nn.Conv2d(4, 6, (1, 3), padding="same"),
    "3 x 3 x 3": lambda: nn.Conv3d(4, 6, 3, stride=2, padding=1),
    "1 x 1 x 1": lambda: nn.Conv3d(4, 6, 1),
    "1 x 1 x 3": lambda: nn.Conv3d(4, 6, (1, 1, 3), padding=(0, 0, 1), bias=False),
}
every_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
convolutional = pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])


class Stack(nn.Sequential):
    """A tower of nothing but layers."""

    def stack(self) -> list[nn.Module]:
        return list(self)


def images(axes: int) -> Tensor:
    return torch.randn(2, 4, *[9] * axes, generator=torch.Generator().manual_seed(0))


def move(module: nn.Module, scale: float = 0.3) -> None:
    """Every number that an adapter has learned, a random one."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_" in name:
                parameter += scale * torch.randn(parameter.shape, generator=draw)


@every_kind
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_what_is_added_to_a_convolution_is_the_formula_of_the_paper(make: Any, config: Lora) -> None:
    """Against the kernel W + scale * sum over r of B[:, r] A[r], for DoRA brought to the learned lengths."""
    torch.manual_seed(0)
    layer = make()
    x, function = images(layer.weight.ndim - 2), type(layer)._conv_forward
    plain, tower = layer(x), Stack(layer)
    attach("t", tower, config)
    assert torch.equal(tower(x), plain), "starts as the layer"
    move(tower)
    [(_, adapted)] = adapted_layers(tower)
    A, B = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    kernel = layer.weight + config.alpha / (3**0.5 if config.rslora else 3) * torch.einsum(
        "dr...,rc...->dc...", B.expand(-1, -1, *A.shape[2:]), A
    )
    if config.dora:
        lengths = adapted.lora_magnitude_vector["default"].weight
        kernel = kernel * (lengths.flatten() / kernel.flatten(1).norm(dim=1)).view(-1, *[1] * (kernel.ndim - 1))
    expected, found = function(layer, x, kernel, layer.bias), tower(x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, plain, atol=0.1)
    merge(tower)
    assert type(tower[0]) is type(layer) and not hasattr(tower, "peft_config")
    torch.testing.assert_close(tower(x), expected, atol=1e-4, rtol=1e-4)


def test_a_convolution_that_lora_does_not_fit_is_left_as_it_is_and_told() -> None:
    tower = Stack(
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        StdConv2d(8, 8, 3),
    )
    attach("t", tower, Lora(rank=2))
    assert [name for name, _ in adapted_layers(tower)] == ["0"]
    assert unsuited(tower) == ["1", "2", "3", "4"]
    with pytest.raises(ConfigError, match="no layer of tower 't' that takes an adapter is called '1'"):
        attach("t", Stack(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=4)), Lora(targets=["1"]))


def test_a_tower_that_takes_no_adapter_is_an_error() -> None:
    with pytest.raises(ConfigError, match="tower 't' has no linear layer and no convolution that takes an adapter"):
        attach("t", Stack(nn.ReLU(), nn.Conv2d(4, 4, 1, groups=4)), Lora())


def make_preprocessing(side: int = SIDE) -> Preprocessing:
    image = ImageScaling(
        channels=["t1"],
        shape=[side, side],
        intensity=Percentile(rule="percentile"),
        mean=[0.0],
        std=[1.0],
        patients=[9],
    )
    return Preprocessing(cohort="small", patients=9, records=9, modalities={"mri": image})


def make_model(model: str, **arguments: Any) -> MultimodalModel:
    """With statistics of batches that are not those it was made with."""
    torch.manual_seed(0)
    tower = towers["vit2d"].Config(model=model, arguments=arguments)
    described = make_preprocessing().described()
    made = MultimodalModel(MultimodalConfig.of(described, {"mri": tower}, fusions["gated_mean"].tiny(), WIDTH))
    for name, buffer in made.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return made.eval()


def make_tasks() -> dict[str, Task]:
    task = tasks.build(
        tasks["subtype"].Config(endpoint="kind"), {"kind": {"kind": "subtype", "classes": {"a": 5, "b": 3}}}
    )
    return {task.name: task}


def make_heads() -> nn.ModuleDict:
    torch.manual_seed(0)
    heads = nn.ModuleDict({name: Head(task, [Block("fused", WIDTH)]) for name, task in make_tasks().items()})
    for parameter in heads.parameters():
        nn.init.normal_(parameter, std=0.3)
    return heads


def make_batch() -> Batch:
    names = [f"P{row}" for row in range(ROWS)]
    return Batch(
        modalities=("mri",),
        patients=names,
        records=names,
        rows=torch.arange(ROWS),
        epochs=torch.zeros(ROWS, dtype=torch.int64),
        present_BM=torch.ones(ROWS, 1, dtype=torch.bool),
        images={"mri": torch.randn(ROWS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))},
        channels={"mri": torch.ones(ROWS, 1, dtype=torch.bool)},
        omics={},
        observed={},
        endpoints={},
        sites=[""] * ROWS,
        groups=[""] * ROWS,
    )


def embed(model: MultimodalModel) -> Tensor:
    with torch.no_grad():
        return model(make_batch(), {FUSED: View(FUSED)})[FUSED].z_BD


def train(adapted: Adapted) -> Adapted:
    adapted.train()
    optimiser = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        optimiser.zero_grad()
        adapted(make_batch())[EVERYTHING]["kind"].square().sum().backward()
        optimiser.step()
    return adapted.eval()


def statistics(model: nn.Module) -> dict[str, Tensor]:
    kept = ("running_mean", "running_var", "num_batches_tracked")
    return {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith(kept)}


def adapted_names(adapted: Adapted) -> set[str]:
    return {name for name, _ in adapted_layers(adapted.model.towers["mri"])}


@convolutional
def test_of_a_convolutional_tower_every_convolution_is_adapted_that_takes_it(model: str) -> None:
    base = make_model(model)
    adapted = adapt(base, Lora(rank=2), make_heads())
    kernels = {name: part for name, part in base.towers["mri"].named_modules() if isinstance(part, nn.Conv2d)}
    assert adapted_names(adapted) == {name for name, part in kernels.items() if part.groups == 1}
    grouped = alike(name for name, part in kernels.items() if part.groups > 1)
    assert adapted.parts()[0].unsuited == dict(grouped)
    for name in grouped:
        assert f"left as it is, LoRA does not fit: {name}" in adapted.summary()


@pytest.mark.parametrize("model", ["test_vit", "test_convnext"])
def test_of_a_tower_whose_blocks_have_linear_layers_these_alone_are_adapted(model: str) -> None:
    """As in earlier versions, whose adapters are still read: no patch embedding, no convolution of ConvNeXt."""
    base = make_model(model)
    linear = {name for name, part in base.towers["mri"].named_modules() if isinstance(part, nn.Linear)}
    adapted = adapt(base, Lora(rank=2), make_heads())
    assert linear and adapted_names(adapted) == linear
    assert not adapted.parts()[0].unsuited


@convolutional
@every_kind
@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_a_convolutional_tower_starts_as_the_base(model: str, config: Lora, mode: str) -> None:
    base = make_model(model)
    everything = config.model_copy(update={"train": ["projections", "norms"], "dropout": 0.2})
    adapted = adapt(base, everything, make_heads()).train(mode == "training")
    assert torch.equal(embed(adapted.model), embed(base))


@convolutional
@pytest.mark.parametrize(
    ("config", "moves"),
    [(Lora(rank=2), False), (Lora(rank=2, train=["norms"]), False), (Frozen(train=["norms"]), False), (Full(), True)],
)
def test_statistics_of_batches_move_only_where_all_weights_are_trained(model: str, config: Any, moves: bool) -> None:
    base = make_model(model)
    adapted = train(adapt(base, config, make_heads()))
    known, found = statistics(base), statistics(adapted.model)
    assert known.keys() == found.keys() and known
    assert all(torch.equal(found[name], tensor) for name, tensor in known.items()) != moves
    if not isinstance(config, Full) and "norms" in config.train:
        [*norms] = [p for n, p in adapted.named_parameters() if p.requires_grad and ".bn1." in n]
        assert norms, "their weights are trained"


@convolutional
@every_kind
def test_an_adapted_convolutional_tower_is_stored_and_merged(model: str, config: Lora, tmp_path: Path) -> None:
    adapted = train(adapt(make_model(model), config.model_copy(update={"train": ["norms"]}), make_heads()))
    with torch.no_grad():
        expected = adapted(make_batch())[EVERYTHING]["kind"]
    adapter.write(
        tmp_path / "adapter",
        adapted,
        make_tasks(),
        modalities=["mri"],
        declared={"kind": {"kind": "subtype", "classes": {"a": 5, "b": 3}}},
        groups=[],
        seen=SeenPatients.of(["P0"]),
    )
    again, _, _ = adapter.read(tmp_path / "adapter", make_model(model))
    with torch.no_grad():
        assert torch.equal(again(make_batch())[EVERYTHING]["kind"], expected)
    merged = adapted.merged()
    assert merged.state_dict().keys() == make_model(model).state_dict().keys()
    torch.testing.assert_close(embed(merged), embed(adapted.model), atol=1e-4, rtol=0)
    assert not torch.allclose(embed(merged), embed(make_model(model)), atol=1e-2)
    model_folder.write(tmp_path / "model", merged, make_preprocessing(), "# adapted\n")
    assert torch.equal(embed(model_folder.read(tmp_path / "model")[0]), embed(merged))


def test_a_dilated_tower_is_adapted() -> None:
    base = make_model("resnet18", output_stride=8)
    adapted = train(adapt(base, Lora(rank=2), make_heads()))
    torch.testing.assert_close(embed(adapted.merged()), embed(adapted.model), atol=1e-4, rtol=0)
