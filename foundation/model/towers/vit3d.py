"""vit3d: MONAI's vision transformer on volumes, with patches that may be longer along one axis than another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foundation.config import Place
from foundation.errors import ConfigError
from foundation.model.layers.attention_pool import AttentionPool
from foundation.model.layers.image_patches import MaskTokens, grid_of, pad, patchify
from foundation.model.towers.base import ImageTower, Tokens, TowerConfig, towers
from foundation.model.weights import load_weights

POSITIONS = "patch_embedding.position_embeddings"


class ViT3DConfig(TowerConfig):
    """MONAI's vision transformer."""

    tower: Literal["vit3d"] = "vit3d"
    patch: tuple[int, int, int] = Field(default=(16, 16, 8), description="Voxels of a patch along x, y and z.")
    width: int = Field(default=384, ge=1)
    depth: int = Field(default=12, ge=1, description="Number of blocks.")
    heads: int = Field(default=6, ge=1, description="Attention heads; they divide the width.")
    mlp_width: int | None = Field(default=None, ge=1, description="Hidden width of a block; 4 x width by default.")
    qkv_bias: bool = Field(default=False, description="As the pretrained weights have it.")
    positions: Literal["learned", "sincos"] = Field(default="learned", description="sincos needs a width of 6 x n.")
    position_scale: float = Field(
        default=0.5, gt=0, description="Standard deviation of learned positions at the start, where weights are none."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="After patches, attention and hidden layers.")
    weights: Annotated[Literal["none"] | Place, Field(union_mode="left_to_right")] = Field(
        default="none", description="none, a file, the folder of a MONAI bundle, or hf://organisation/name@revision."
    )


@towers.register("vit3d")
class ViT3D(ImageTower):
    """Patches of a volume as tokens, in the order x, y, z (z fastest), pooled by attention.

    A volume that is not a whole number of patches is padded at its far ends with its last voxels.
    """

    Config = ViT3DConfig
    config: ViT3DConfig
    vit: Any
    dimensions = (3,)
    stem = ("vit.patch_embedding.",)

    def __init__(self, config: ViT3DConfig, channels: int, shape: Sequence[int]) -> None:
        super().__init__()
        if len(shape) != 3:
            what = f"vit3d reads volumes, and this image has {len(shape)} axes"
            raise ConfigError(what, where="towers", fix="use vit2d for 2D images")
        self.config = config
        self.width, self.patch, self.order = config.width, config.patch, (0, 1, 2)
        self.grid = grid_of(shape, config.patch, "vit3d")
        self.vit = _create(config, channels, self.grid)
        self.mask_tokens = MaskTokens(channels, config.patch, config.width)
        self.pool = AttentionPool(config.width, config.heads)
        if config.weights != "none":
            self.weights = load_weights(self.vit, config.weights, {POSITIONS: (0, self.grid)})

    @classmethod
    def tiny(cls) -> ViT3DConfig:
        """Three blocks of width 96 on patches of 8 voxels."""
        return ViT3DConfig(patch=(8, 8, 8), width=96, depth=3, heads=3, mlp_width=192)

    def stack(self) -> list[nn.Module]:
        """See `Tower.stack`."""
        return list(self.vit.blocks)

    def forward(self, x_BCXYZ: Tensor, channels_BC: Tensor, hidden_BT: Tensor | None = None) -> Tokens:
        """See `ImageTower.forward`."""
        x_BTD = self.vit.patch_embedding(self.mask_tokens(pad(x_BCXYZ, self.patch), channels_BC, hidden_BT))
        for block in self.vit.blocks:
            x_BTD = block(x_BTD)
        x_BTD = self.vit.norm(x_BTD)
        pattern_BD = self.mask_tokens.pattern(channels_BC)
        real_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        return Tokens(
            pooled_BD=self.pool(x_BTD) + pattern_BD,
            tokens_BTD=x_BTD + pattern_BD[:, None],
            real_BT=real_BT if hidden_BT is None else ~hidden_BT,
            modality_T=torch.zeros(x_BTD.shape[1], dtype=torch.int64, device=x_BTD.device),
        )

    def patches(self, x_BCXYZ: Tensor) -> Tensor:
        """The patches of the volume; see the contract."""
        return patchify(pad(x_BCXYZ, self.patch), self.patch)


def _create(config: ViT3DConfig, channels: int, grid: tuple[int, ...]) -> Any:
    """MONAI's ViT; `Any`, because its parts are known to torch's modules by name only."""
    from monai.networks.nets.vit import ViT

    if config.width % config.heads:
        what = f"{config.heads} attention heads do not divide a width of {config.width}"
        raise ConfigError(what, where="towers", fix="choose a number of heads that does")
    if config.positions == "sincos" and config.width % 6:
        what = f"sincos positions of a volume need a width that 6 divides, not {config.width}"
        raise ConfigError(what, where="towers", fix="choose such a width, or `positions: learned`")
    with warnings.catch_warnings():
        # MONAI calls torch.meshgrid in the way that torch is about to change.
        warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
        vit: Any = ViT(
            in_channels=channels,
            img_size=[n * size for n, size in zip(grid, config.patch, strict=True)],
            patch_size=config.patch,
            hidden_size=config.width,
            mlp_dim=config.mlp_width or 4 * config.width,
            num_layers=config.depth,
            num_heads=config.heads,
            pos_embed_type={"learned": "learnable", "sincos": "sincos"}[config.positions],
            dropout_rate=config.dropout,
            qkv_bias=config.qkv_bias,
        )
    if config.positions == "learned":
        nn.init.trunc_normal_(vit.patch_embedding.position_embeddings, std=config.position_scale)
    for block in vit.blocks:
        # MONAI makes a norm for cross-attention that a ViT does not have; it would never see a gradient.
        block.norm_cross_attn = nn.Identity()
        # torch's attention instead of the written-out product; MONAI would pass it the dropout in evaluation too.
        block.attn.use_flash_attention, block.attn.dropout_rate = True, 0.0
    return vit
