"""vit2d: timm models by name, slices of a volume, what a slice's place and a channel's absence do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from foundation.config import load_config
from foundation.errors import ConfigError
from foundation.model.towers.vit2d import ViT2D, ViT2DConfig, waves

SHAPE = (40, 48, 24)


def make(shape: tuple[int, ...] = SHAPE, channels: int = 2, seed: int = 0, **changes: Any) -> ViT2D:
    torch.manual_seed(seed)
    return ViT2D(ViT2D.tiny().model_copy(update=changes), channels, shape).eval()


def scans(rows: int = 2, channels: int = 2, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(rows, channels, *shape, generator=torch.Generator().manual_seed(0))


def look(tower: ViT2D, x: torch.Tensor, channels: torch.Tensor | None = None, hidden: torch.Tensor | None = None):
    everything = torch.ones(x.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return tower(x, everything if channels is None else channels, hidden)


@pytest.mark.parametrize(
    ("model", "channels", "shape", "grid"),
    [
        ("test_vit", 1, (64, 48), (4, 3)),
        ("test_vit", 5, (33, 64, 3), (3, 3, 4)),
        ("test_convnext", 4, (64, 40), (2, 2)),
        ("test_resnet", 3, (64, 96, 2), (2, 2, 3)),
        ("test_vit2", 2, (48, 48), (3, 3)),
    ],
)
def test_any_timm_model_and_any_number_of_channels(
    model: str, channels: int, shape: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    tower = make(shape, channels, model=model, arguments={})
    tokens = look(tower, scans(2, channels, shape))
    width = timm.create_model(model, num_classes=0).num_features
    assert tower.grid == grid and tower.width == width
    assert tokens.pooled_BD.shape == (2, width)
    assert tokens.tokens_BTD.shape == (2, torch.Size(grid).numel(), width)


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_convnext"])
def test_a_2d_image_is_what_timm_makes_of_it(model: str) -> None:
    tower = make((64, 64), 3, model=model, arguments={})
    x = scans(2, 3, (64, 64))
    with torch.no_grad():
        expected = tower.net(x)
        features = tower.net.forward_features(x)
    torch.testing.assert_close(look(tower, x).pooled_BD, expected)
    tokens = look(tower, x).tokens_BTD
    if features.ndim == 4:
        torch.testing.assert_close(tokens[:, 1], features[:, :, 0, 1])
    else:
        torch.testing.assert_close(tokens[:, 1], features[:, tower.net.num_prefix_tokens + 1])


@pytest.mark.parametrize(
    ("depth", "most", "chosen"),
    [(24, 8, [1, 4, 7, 10, 13, 16, 19, 22]), (5, 8, [0, 1, 2, 3, 4]), (5, None, [0, 1, 2, 3, 4]), (9, 1, [4])],
)
def test_slices_are_evenly_spaced(depth: int, most: int | None, chosen: list[int]) -> None:
    assert make((16, 16, depth), max_slices=most).slices == chosen


@pytest.mark.parametrize(("axis", "order", "patch"), [("x", (0, 1, 2), (1, 8, 8)), ("y", (1, 0, 2), (8, 1, 8))])
def test_slices_along_any_axis(axis: str, order: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """A volume turned so that its slices lie along z looks the same as slices along its own axis."""
    one, other = make((9, 9, 9), slice_axis="z", max_slices=4), make((9, 9, 9), slice_axis=axis, max_slices=4)
    other.load_state_dict(one.state_dict())
    assert (other.order, other.patch) == (order, patch)
    x = scans(2, 2, (9, 9, 9))
    turned = x.movedim(-1, 2 + "xyz".index(axis))
    assert torch.equal(look(one, x).tokens_BTD, look(other, turned).tokens_BTD)
    assert torch.equal(one.patches(x), other.patches(turned))


def test_a_tokens_patch_is_where_grid_and_order_say() -> None:
    tower, x = make(max_slices=None), scans()
    patches = tower.patches(x).unflatten(1, tower.grid).unflatten(-1, (2, 8, 8))
    assert torch.equal(patches[1, 20, 3, 5], x[1, :, 24:32, 40:48, 20])


def test_slices_that_are_not_chosen_do_not_matter() -> None:
    tower, x = make(), scans()
    noisy = x + 9.0
    noisy[..., tower.slices] = x[..., tower.slices]
    assert torch.equal(look(tower, x).pooled_BD, look(tower, noisy).pooled_BD)


def test_the_place_of_a_slice_matters() -> None:
    tower, x = make(), scans()
    assert not torch.allclose(look(tower, x).pooled_BD, look(tower, x.flip(-1)).pooled_BD, atol=1e-5)


def test_absent_channels_are_neither_zeros_nor_the_mean() -> None:
    tower, x = make(), scans(1)
    absent = look(tower, x, torch.tensor([[True, False]])).pooled_BD
    x[:, 1] = 0
    assert not torch.allclose(absent, look(tower, x).pooled_BD, atol=1e-5)


def test_relative_positions_mean_the_same_in_any_volume() -> None:
    few, many = waves(torch.tensor([0.25, 0.75]), 32), waves(torch.linspace(0.05, 0.95, 19), 32)
    assert torch.allclose(few[0], many[4], atol=1e-4) and few.shape == (2, 32)
    distance = torch.cdist(many, many) + 9 * torch.eye(19)
    assert distance.min() > 0.5 and waves(torch.rand(3), 7).shape == (3, 7)


def test_positions_start_at_the_scale_asked_for() -> None:
    for scale in (0.5, 0.02):
        assert make(position_scale=scale).net.pos_embed.std().item() == pytest.approx(scale, rel=0.1)


def test_a_local_file_is_made_to_fit(tmp_path: Path) -> None:
    """A model for 160-voxel colour images becomes one for two channels of 64 x 48 voxels."""
    torch.manual_seed(3)
    pretrained = timm.create_model("test_vit", num_classes=10)
    save_file(pretrained.state_dict(), tmp_path / "w.safetensors")
    tower = make((64, 48, 3), 2, model="test_vit", arguments={}, weights=tmp_path / "w.safetensors")
    report = tower.weights
    assert report is not None and not report.missing and not report.unfit
    assert sorted(report.reshaped) == ["patch_embed.proj.weight", "pos_embed"]
    assert report.unused == ["head.bias", "head.weight"]
    assert torch.equal(tower.net.blocks[3].attn.qkv.weight, pretrained.blocks[3].attn.qkv.weight)
    assert torch.equal(tower.net.pos_embed[:, 0], pretrained.pos_embed[:, 0])


def test_weights_may_be_written_in_yaml(tmp_path: Path) -> None:
    for text, expected in [("none", "none"), ("timm", "timm"), ("sub/w.pt", tmp_path / "sub" / "w.pt")]:
        (tmp_path / "tower.yaml").write_text(f"tower: vit2d\nweights: {text}\n")
        assert load_config(ViT2DConfig, tmp_path / "tower.yaml").weights == expected


def test_timm_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"(?s)timm cannot make 'test_vit.*connect to the network.*weights: none"):
        make((32, 32), model="test_vit", arguments={"cache_dir": str(tmp_path)}, weights="timm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vit_tiny_patch16_225"}, r"(?s)no model 'vit_tiny_patch16_225'.*did you mean 'vit_tiny"),
        ({"arguments": {"patchsize": 8}}, r"(?s)does not take these arguments.*patchsize"),
        ({"model": "mobilenetv3_small_050", "arguments": {}}, "wider or narrower"),
        ({"pool_heads": 5}, "5 attention heads do not divide a width of 64"),
        ({"arguments": {"patch_size": 44}}, r"44 x 44 voxels, larger than the 40 x 48 voxels"),
    ],
)
def test_what_cannot_be_made_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
