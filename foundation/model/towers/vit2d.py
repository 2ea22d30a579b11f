"""vit2d: any timm model on 2D images, or on the slices of a volume, pooled by attention with slice positions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foundation.config import Place
from foundation.errors import ConfigError, nearest
from foundation.model.layers.attention_pool import AttentionPool
from foundation.model.layers.image_patches import MaskTokens, grid_of, pad, patchify
from foundation.model.towers.base import ImageTower, Tokens, TowerConfig, towers
from foundation.model.weights import Loaded, load_weights

AXES = "xyz"


class ViT2DConfig(TowerConfig):
    """Any timm model, for 2D images or slice by slice."""

    tower: Literal["vit2d"] = "vit2d"
    model: str = Field(default="vit_tiny_patch16_224", description="Name of a timm model, with its tag if any.")
    arguments: dict[str, bool | int | float | str] = Field(
        default={}, description="Further arguments of the timm model, such as patch_size, embed_dim or depth."
    )
    weights: Annotated[Literal["none", "timm"] | Place, Field(union_mode="left_to_right")] = Field(
        default="none",
        description="none, timm (needs the network or its cache), a file, or hf://organisation/name@revision.",
    )
    position_scale: float = Field(
        default=0.5, gt=0, description="Standard deviation of learned positions at the start, where weights are none."
    )
    slice_axis: Literal["x", "y", "z"] = Field(default="z", description="Axis of a volume that is cut into slices.")
    max_slices: int | None = Field(default=16, ge=1, description="Evenly spaced slices that are read; all where null.")
    pool_heads: int = Field(default=4, ge=1, description="Heads of the attention that pools the slices.")


@towers.register("vit2d")
class ViT2D(ImageTower):
    """Every slice goes through one timm model; a learned query pools the slices of a record.

    Tokens are the model's last features: the patches of a transformer, or the cells of the last feature map of a
    convolutional network, whose patch is its stride. Those of a volume run over its slices, then within each slice
    over its two axes in the order x, y, z. The slices are evenly spaced, the same ones for every record; a 2D image
    is one slice. A model with batch normalisation makes a record depend on its batch while training.
    """

    Config = ViT2DConfig
    net: Any
    waves_SD: Tensor

    def __init__(self, config: ViT2DConfig, channels: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.axis = AXES.index(config.slice_axis) if len(shape) == 3 else None
        plane_axes = [axis for axis in range(len(shape)) if axis != self.axis]
        self.net = _create(config, channels)
        self.plane_patch = _patch(self.net)
        plane_grid = grid_of([shape[axis] for axis in plane_axes], self.plane_patch, f"vit2d ({config.model})")
        self._fit_to(tuple(n * size for n, size in zip(plane_grid, self.plane_patch, strict=True)))
        self.width = int(self.net.num_features)
        self.mask_tokens = MaskTokens(channels, self.plane_patch, self.width)
        self.patch, self.grid, self.order = self.plane_patch, plane_grid, tuple(plane_axes)
        if self.axis is not None:
            self._add_slices(self.axis, shape[self.axis])

    def _add_slices(self, axis: int, depth: int) -> None:
        count = min(depth, self.config.max_slices or depth)
        self.slices = [math.floor((i + 0.5) * depth / count) for i in range(count)]
        self.patch = (*self.patch[:axis], 1, *self.patch[axis:])
        self.grid, self.order = (count, *self.grid), (axis, *self.order)
        self.pool = AttentionPool(self.width, self.config.pool_heads)
        self.position = nn.Linear(self.width, self.width, bias=False)
        where_S = torch.tensor([(i + 0.5) / depth for i in self.slices])
        self.register_buffer("waves_SD", waves(where_S, self.width))

    def _fit_to(self, size: tuple[int, ...]) -> None:
        """Make the model take slices of this size, then load a local file or widen the positions."""
        if hasattr(self.net, "set_input_size"):
            self.net.set_input_size(img_size=size)
        positions = getattr(self.net, "pos_embed", None)
        if self.config.weights == "none" and positions is not None:
            nn.init.trunc_normal_(positions, std=self.config.position_scale)
        elif self.config.weights == "timm":
            licence = str(self.net.pretrained_cfg.get("license") or "")
            self.weights = Loaded(f"timm's {self.config.model}", loaded=list(self.net.state_dict()), licence=licence)
        elif self.config.weights != "none":
            leading = 0 if getattr(self.net, "no_embed_class", False) else getattr(self.net, "num_prefix_tokens", 0)
            grid = tuple(n // patch for n, patch in zip(size, self.plane_patch, strict=True))
            self.weights = load_weights(self.net, self.config.weights, {"pos_embed": (leading, grid)})

    @classmethod
    def tiny(cls) -> ViT2DConfig:
        """Two blocks of width 64 on eight slices."""
        arguments: dict[str, Any] = {"patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
        return ViT2DConfig(arguments=arguments, max_slices=8)

    def stack(self) -> list[nn.Module]:
        """See `Tower.stack`; of a convolutional network the blocks of all its stages."""
        patterns = _block_patterns(self.net)
        return [part for name, part in self.net.named_modules() if any(re.fullmatch(p, name) for p in patterns)]

    def layers(self) -> list[list[str]]:
        """See `Tower.layers`; between the stages of a network lie parameters that only timm can place."""
        from timm.models import group_parameters

        groups = group_parameters(self.net, self.net.group_matcher(coarse=False))
        layers = [[f"net.{name}" for name in groups[depth]] for depth in sorted(groups)]
        placed = {name for layer in layers for name in layer}
        return [*layers, [name for name, _ in self.named_parameters() if name not in placed]]

    def forward(self, x_BCXYZ: Tensor, channels_BC: Tensor, hidden_BT: Tensor | None = None) -> Tokens:
        """See `ImageTower.forward`."""
        count = len(self.slices) if self.axis is not None else 1
        x_NCXY = pad(self._slices(x_BCXYZ), self.plane_patch)
        hidden_NP = None if hidden_BT is None else hidden_BT.unflatten(1, (count, -1)).flatten(0, 1)
        x_NCXY = self.mask_tokens(x_NCXY, channels_BC.repeat_interleave(count, dim=0), hidden_NP)
        features = self.net.forward_features(x_NCXY)
        seen_ND = self.net.forward_head(features, pre_logits=True)
        tokens_BSPD = self.cells_of(features).unflatten(0, (-1, count))
        pattern_BD = self.mask_tokens.pattern(channels_BC)
        pooled_BD = seen_ND
        if self.axis is not None:
            position_SD = self.position(self.waves_SD)
            pooled_BD = self.pool(seen_ND.unflatten(0, (-1, count)) + position_SD)
            tokens_BSPD = tokens_BSPD + position_SD[:, None]
        tokens_BTD = tokens_BSPD.flatten(1, 2) + pattern_BD[:, None]
        real_BT = torch.ones(tokens_BTD.shape[:2], dtype=torch.bool, device=x_BCXYZ.device)
        return Tokens(
            pooled_BD=pooled_BD + pattern_BD,
            tokens_BTD=tokens_BTD,
            real_BT=real_BT if hidden_BT is None else ~hidden_BT,
            modality_T=torch.zeros(tokens_BTD.shape[1], dtype=torch.int64, device=x_BCXYZ.device),
        )

    def patches(self, x_BCXYZ: Tensor) -> Tensor:
        """The patches of the slices that it reads; see the contract."""
        patches_NPV = patchify(pad(self._slices(x_BCXYZ), self.plane_patch), self.plane_patch)
        return patches_NPV.unflatten(0, (len(x_BCXYZ), -1)).flatten(1, 2)

    def _slices(self, x_BCXYZ: Tensor) -> Tensor:
        """[B * S, C, X, Y] (or the two other axes), all slices of a record after each other."""
        if self.axis is None:
            return x_BCXYZ
        chosen = torch.tensor(self.slices, device=x_BCXYZ.device)
        return x_BCXYZ.index_select(2 + self.axis, chosen).movedim(2 + self.axis, 1).flatten(0, 1)

    def cells_of(self, features: Tensor) -> Tensor:
        """[N, P, D] of what a timm model calls features: tokens, or a map with channels first or last."""
        if features.ndim == 4:
            channels_first = getattr(self.net, "output_fmt", "NCHW") == "NCHW"
            return features.flatten(2).transpose(1, 2) if channels_first else features.flatten(1, 2)
        return features[:, getattr(self.net, "num_prefix_tokens", 0) :]


def _block_patterns(net: Any) -> list[str]:
    """Regular expressions for the names of a timm model's blocks, among what it says of its layers."""
    groups = [spec for name, spec in net.group_matcher(coarse=False).items() if name != "stem" and spec is not None]
    pairs = [pair for spec in groups for pair in ([(spec, None)] if isinstance(spec, str) else spec)]
    return [pattern for pattern, place in pairs if place is None]


def waves(where_P: Tensor, width: int) -> Tensor:
    """Sines and cosines of relative positions, [P] in 0 to 1 to [P, D], from half a wave to 64 over the whole.

    Relative positions mean the same place in volumes of any number of slices.
    """
    half = (width + 1) // 2
    frequency_D = torch.pi * 2.0 ** torch.linspace(0, 7, half, device=where_P.device)
    angle_PD = where_P[:, None] * frequency_D
    return torch.cat([angle_PD.sin(), angle_PD.cos()], dim=1)[:, :width]


def _create(config: ViT2DConfig, channels: int) -> Any:
    import timm

    where = "towers.model"
    if not timm.is_model(config.model):
        known = timm.list_models()
        raise ConfigError(f"timm has no model '{config.model}'", where=where, fix=nearest(config.model, known))
    pretrained = config.weights == "timm"
    arguments: dict[str, Any] = {**config.arguments}
    try:
        net: Any = timm.create_model(config.model, pretrained=pretrained, num_classes=0, in_chans=channels, **arguments)
    except TypeError as error:
        what = f"timm's '{config.model}' does not take these arguments: {error}"
        raise ConfigError(what, where=where, fix="correct `arguments`") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        fix = "correct the model or its arguments"
        if pretrained:
            fix = "connect to the network once, name a local file in `weights`, or write `weights: none`"
        raise ConfigError(f"timm cannot make '{config.model}': {reason}", where=where, fix=fix) from None
    if getattr(net, "head_hidden_size", net.num_features) != net.num_features:
        what = f"the pooled vector of '{config.model}' is wider or narrower than its features"
        raise ConfigError(what, where=where, fix="choose a ViT, ConvNeXt, ResNet or Swin")
    return net


def _patch(net: Any) -> tuple[int, int]:
    """Voxels that one token of a timm model sees: the patch of a transformer, the stride of the last map otherwise."""
    if hasattr(net, "num_prefix_tokens"):
        return tuple(net.patch_embed.patch_size)
    stride = int(net.feature_info[-1]["reduction"])
    return stride, stride
