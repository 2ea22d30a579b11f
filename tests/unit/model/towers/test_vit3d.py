"""vit3d: MONAI's ViT with anisotropic patches, padding, and weights from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.vit import ViT

from foundation.errors import ConfigError
from foundation.model.towers.vit3d import ViT3D, ViT3DConfig

SHAPE = (12, 16, 9)
SMALL = ViT3DConfig(patch=(4, 8, 3), width=24, depth=2, heads=2, mlp_width=32)


def make(shape: tuple[int, ...] = SHAPE, channels: int = 2, seed: int = 0, **changes: Any) -> ViT3D:
    torch.manual_seed(seed)
    return ViT3D(SMALL.model_copy(update=changes), channels, shape).eval()


def volumes(rows: int = 2, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(rows, 2, *shape, generator=torch.Generator().manual_seed(0))


def look(tower: ViT3D, x: torch.Tensor, channels: torch.Tensor | None = None):
    everything = torch.ones(x.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return tower(x, everything if channels is None else channels)


def monai(channels: int = 2, size: tuple[int, ...] = SHAPE, **changes: Any) -> ViT:
    torch.manual_seed(7)
    arguments = {"patch_size": (4, 8, 3), "hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 2}
    return ViT(in_channels=channels, img_size=size, **(arguments | changes)).eval()


def test_it_is_monais_vit_and_takes_its_weights(tmp_path: Path) -> None:
    """With the weights of a bundle, tokens are those of MONAI's own forward."""
    reference = monai()
    (tmp_path / "models").mkdir()
    torch.save({"state_dict": {f"vit.{k}": v for k, v in reference.state_dict().items()}}, tmp_path / "models/model.pt")
    tower, x = make(weights=tmp_path), volumes()
    assert not tower.weights.missing and not tower.weights.unfit and not tower.weights.reshaped
    assert all("norm_cross_attn" in name for name in tower.weights.unused)
    with torch.no_grad():
        expected, _ = reference(x)
    torch.testing.assert_close(look(tower, x).tokens_BTD, expected, rtol=1e-4, atol=1e-5)


def test_weights_of_another_size_are_made_to_fit(tmp_path: Path) -> None:
    torch.save(monai(1, (16, 16, 16), patch_size=4).state_dict(), tmp_path / "w.pt")
    tower = make(weights=tmp_path / "w.pt")
    assert sorted(tower.weights.reshaped) == [
        "patch_embedding.patch_embeddings.weight",
        "patch_embedding.position_embeddings",
    ]
    assert not tower.weights.missing and torch.isfinite(look(tower, volumes()).pooled_BD).all()


@pytest.mark.parametrize(("shape", "grid"), [((12, 16, 9), (3, 2, 3)), ((10, 17, 7), (3, 3, 3)), ((4, 8, 3), (1,) * 3)])
def test_a_volume_is_padded_to_whole_patches(shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    tower, x = make(shape), volumes(shape=shape)
    assert tower.grid == grid
    assert look(tower, x).tokens_BTD.shape == (2, torch.Size(grid).numel(), 24)
    assert tower.patches(x).shape == (2, torch.Size(grid).numel(), 2 * 4 * 8 * 3)


def test_padding_repeats_the_last_voxels() -> None:
    tower, x = make((10, 16, 9)), volumes(shape=(10, 16, 9))
    last = tower.patches(x).unflatten(1, tower.grid)[:, 2].unflatten(-1, (2, 4, 8, 3))
    assert torch.equal(last[..., 2, :, :], last[..., 1, :, :]) and torch.equal(last[..., 3, :, :], last[..., 1, :, :])


def test_a_tokens_patch_is_where_grid_and_order_say() -> None:
    tower, x = make(), volumes()
    patches = tower.patches(x).unflatten(1, tower.grid).unflatten(-1, (2, 4, 8, 3))
    assert torch.equal(patches[1, 2, 1, 0], x[1, :, 8:12, 8:16, 0:3])


def test_sincos_positions_are_fixed() -> None:
    tower = make(positions="sincos", width=48)
    assert not tower.vit.patch_embedding.position_embeddings.requires_grad
    assert torch.isfinite(look(tower, volumes()).pooled_BD).all()


def test_learned_positions_start_at_the_scale_asked_for() -> None:
    positions = make(position_scale=0.3).vit.patch_embedding.position_embeddings
    assert positions.std().item() == pytest.approx(0.3, rel=0.15)


def test_the_place_of_a_patch_matters() -> None:
    tower, x = make(), volumes()
    assert not torch.allclose(look(tower, x).pooled_BD, look(tower, x.roll(4, dims=2)).pooled_BD, atol=1e-4)


def test_dropout_acts_in_training_alone() -> None:
    tower, x = make(dropout=0.5), volumes()
    assert torch.equal(look(tower, x).pooled_BD, look(tower, x).pooled_BD)
    tower.train()
    assert not torch.equal(look(tower, x).pooled_BD, look(tower, x).pooled_BD)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((12, 16, 2), {}, "patches of 4 x 8 x 3 voxels, larger than the 12 x 16 x 2 voxels"),
        ((12, 16), {}, "reads volumes"),
        (SHAPE, {"heads": 5}, "5 attention heads do not divide a width of 24"),
        (SHAPE, {"positions": "sincos", "width": 28}, "that 6 divides, not 28"),
    ],
)
def test_what_cannot_be_made_is_one_clear_error(shape: tuple, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(shape, **changes)
