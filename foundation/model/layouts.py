"""Weights of a vision transformer under the names of others, put under those of timm's and MONAI's, exactly.

Hugging Face's ViT, MAE, DINOv2 and CLIP, OpenAI's CLIP, Meta's DINOv2 and MONAI's MAE compute what timm's or MONAI's
transformer computes: only names differ, whether q, k and v lie in one matrix, and where a factor or a position is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Size, Tensor

from foundation.errors import CheckpointError
from foundation.model.efficientnet_names import NAME, in_names_of_timm

Positions = Mapping[str, tuple[int, tuple[int, ...]]]
"""Name of each position embedding to its number of leading tokens and its grid."""


class Layout(NamedTuple):
    """How one family names its tensors.

    Attributes:
        name: In words.
        sign: A pattern that one of its names matches, and no name of another layout.
        rules: Patterns and what takes their place, one after the other.
    """

    name: str
    sign: str
    rules: tuple[tuple[str, str], ...]


START = r"(^|\.)"
"""Where a part of a name may begin; ``\\1`` of a rule."""

TO_TIMM = (
    Layout(
        "Hugging Face's ViT",
        START + r"embeddings\.patch_embeddings\.projection\.weight$",
        (
            (START + r"embeddings\.patch_embeddings\.projection\.", r"\1patch_embed.proj."),
            (START + r"embeddings\.position_embeddings$", r"\1pos_embed"),
            (START + r"embeddings\.(cls_token|register_tokens|mask_token)$", r"\1\2"),
            (START + r"(?:encoder\.)?layers?\.(\d+)\.", r"\1blocks.\2."),
            (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
            (r"\.attention\.(q|k|v)_proj\.", r".attn.\1."),
            (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (START + r"layernorm\.", r"\1norm."),
        ),
    ),
    Layout(
        "Hugging Face's CLIP",
        START + r"embeddings\.patch_embedding\.weight$",
        (
            (START + r"embeddings\.patch_embedding\.", r"\1patch_embed.proj."),
            (START + r"embeddings\.position_embedding\.weight$", r"\1pos_embed"),
            (START + r"embeddings\.class_embedding$", r"\1cls_token"),
            (START + r"pre_layrnorm\.", r"\1norm_pre."),
            (START + r"post_layernorm\.", r"\1norm."),
            (START + r"encoder\.layers\.(\d+)\.", r"\1blocks.\2."),
            (r"\.self_attn\.(q|k|v)_proj\.", r".attn.\1."),
            (r"\.self_attn\.out_proj\.", ".attn.proj."),
            (r"\.layer_norm([12])\.", r".norm\1."),
        ),
    ),
    Layout(
        "OpenAI's CLIP",
        START + r"transformer\.resblocks\.0\.attn\.in_proj_weight$",
        (
            (START + r"conv1\.", r"\1patch_embed.proj."),
            (START + r"positional_embedding$", r"\1pos_embed"),
            (START + r"class_embedding$", r"\1cls_token"),
            (START + r"ln_pre\.", r"\1norm_pre."),
            (START + r"ln_post\.", r"\1norm."),
            (START + r"transformer\.resblocks\.(\d+)\.", r"\1blocks.\2."),
            (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
    ),
    Layout(
        "DINOv2 in chunks",
        START + r"blocks\.\d+\.\d+\.norm1\.weight$",
        ((START + r"blocks\.\d+\.(\d+)\.", r"\1blocks.\2."),),
    ),
)

TO_MONAI = (
    Layout(
        "timm's ViT",
        START + r"patch_embed\.proj\.weight$",
        (
            (START + r"patch_embed\.proj\.", r"\1patch_embedding.patch_embeddings."),
            (START + r"pos_embed$", r"\1patch_embedding.position_embeddings"),
            (r"\.attn\.proj\.", ".attn.out_proj."),
            (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
        ),
    ),
    Layout(
        "MONAI's MAE",
        START + r"blocks\.\d+\.weight$",
        ((START + r"blocks\.\d+\.(weight|bias)$", r"\1norm.\2"),),
    ),
)

LAYER_SCALE = re.compile(r"(.+)\.ls([12])\.gamma")

BLOCK = re.compile(r"blocks\.(\d+)\..+")

OF_TIMM = {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}
OF_MONAI = {"patch_embedding.patch_embeddings.weight", "blocks.0.attn.qkv.weight"}


def in_names_of(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file under the names of a tower, still with the file's prefix; and the layouts that it was in.

    A tower that is neither a vision transformer nor an EfficientNet, or a file that is in its names already, is left as
    it is.
    """
    renamed, layouts = dict(found), []
    if of_efficientnet := in_names_of_timm(own, found):
        return of_efficientnet, [NAME]
    if not _is_vit(own):
        return renamed, layouts
    for layout in (*TO_TIMM, *(TO_MONAI if own.keys() >= OF_MONAI else ())):
        if any(re.search(layout.sign, name) for name in renamed):
            renamed = {_renamed(name, layout): tensor for name, tensor in renamed.items()}
            layouts.append(layout.name)
    return renamed, layouts


def _is_vit(own: Mapping[str, Tensor]) -> bool:
    return own.keys() >= OF_TIMM or own.keys() >= OF_MONAI


def _renamed(name: str, layout: Layout) -> str:
    for pattern, replacement in layout.rules:
        name = re.sub(pattern, replacement, name)
    return name


def rearranged(own: Mapping[str, Tensor], found: Mapping[str, Tensor], positions: Positions) -> dict[str, Tensor]:
    """What is kept otherwise in a file, as the tower keeps it; the function that both compute is the same.

    Args:
        own: The tower's tensors.
        found: The file's, in the names of the tower and without a prefix.
        positions: The tower's.

    Raises:
        CheckpointError: A patch embedding is a matrix that may be of more than one size of patch.
    """
    state = dict(found)
    _join_qkv(state)
    _place_layer_scale(own, state)
    _make_convolution(own, state)
    if "register_tokens" in state and "reg_token" in own:
        state["reg_token"] = state.pop("register_tokens")
    for name in ("cls_token", *positions):
        if name in state and state[name].ndim < 3:  # CLIP keeps them without the leading axes
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])
    for name, (leading, grid) in positions.items():
        _place_class_position(state, name, leading, grid)
    for name in own if _is_vit(own) else ():
        if name.endswith(".bias") and name not in state and f"{name[:-5]}.weight" in state:
            state[name] = torch.zeros_like(own[name])  # a matrix without a bias
    return state


def strange(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Tensors in those blocks of a file that a transformer has too, which it has no place for: it computes otherwise.

    MONAI's blocks have a norm for cross-attention, or all of it, that a ViT does not use.
    """
    blocks = {block[1] for block in map(BLOCK.fullmatch, own) if block} if _is_vit(own) else set()
    inside = [(name, block) for name, block in ((name, BLOCK.fullmatch(name)) for name in found) if block]
    return sorted(name for name, block in inside if block[1] in blocks and name not in own and "cross_attn" not in name)


def _join_qkv(state: dict[str, Tensor]) -> None:
    """Matrices of queries, keys and values to one, in this order, as timm and MONAI have it."""
    for name in [name for name in state if re.search(r"\.attn\.q\.(weight|bias)$", name)]:
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if all(part in state for part in parts):
            state[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([state.pop(part) for part in parts])


def _place_layer_scale(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> None:
    """Factors of a branch: into the matrix before them where the tower has none; one where the file has none."""
    last = {"1": ("attn.proj", "attn.out_proj"), "2": ("mlp.fc2", "mlp.linear2")}
    for name in [name for name in state if LAYER_SCALE.fullmatch(name) and name not in own]:
        block, branch = LAYER_SCALE.fullmatch(name).groups()  # type: ignore[union-attr]
        for part in (f"{block}.{part}" for part in last[branch] if f"{block}.{part}.weight" in state):
            gamma_D = state.pop(name)
            state[f"{part}.weight"] = state[f"{part}.weight"] * gamma_D[:, None]
            if f"{part}.bias" in state:
                state[f"{part}.bias"] = state[f"{part}.bias"] * gamma_D
    for name, tensor in own.items():
        found = LAYER_SCALE.fullmatch(name)
        if found and name not in state and f"{found[1]}.norm1.weight" in state:
            state[name] = torch.ones_like(tensor)


def _make_convolution(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> None:
    """MONAI's patch embedding as a matrix, [D, x y z C], to the same as a convolution, [D, C, x, y, z]."""
    place = "patch_embedding.patch_embeddings"
    if f"{place}.1.weight" not in state or f"{place}.weight" not in own:
        return
    weight_DV = state.pop(f"{place}.1.weight")
    state[f"{place}.bias"] = state.pop(f"{place}.1.bias")
    readings = _patches_of(weight_DV.shape[1], own[f"{place}.weight"].shape[2:])
    if len(readings) != 1:
        told = " or ".join(f"{c} channels of {' x '.join(map(str, patch))} voxels" for c, patch in readings) or "none"
        raise CheckpointError(
            f"its patch embedding is a matrix of {weight_DV.shape[1]} voxels, which may be {told}",
            where=f"{place}.1.weight",
            fix="give the tower the `patch` that the weights were trained with",
        )
    channels, patch = readings[0]
    state[f"{place}.weight"] = weight_DV.unflatten(1, (*patch, channels)).movedim(-1, 1).contiguous()


def _patches_of(voxels: int, patch: Size) -> list[tuple[int, tuple[int, ...]]]:
    """What a number of inputs may be: channels of the tower's own patch, or one channel of a cube."""
    readings = {(voxels // patch.numel(), tuple(patch))} if voxels % patch.numel() == 0 else set()
    side = round(voxels ** (1 / len(patch)))
    if side ** len(patch) == voxels:
        readings.add((1, (side,) * len(patch)))
    return sorted(readings)


def _place_class_position(state: dict[str, Tensor], name: str, leading: int, grid: tuple[int, ...]) -> None:
    """The position of a class token: into the token where the tower keeps none for it; away where it has no token."""
    if name not in state or leading or state[name].ndim != 3:
        return
    count = state[name].shape[1]
    if _fills(count, grid) or not _fills(count - 1, grid):
        return
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"] + state[name][:, :1]
    state[name] = state[name][:, 1:]


def _fills(count: int, grid: tuple[int, ...]) -> bool:
    """Whether so many positions are a grid: the tower's own, or one with equal sides."""
    side = round(max(count, 0) ** (1 / len(grid)))
    return count > 0 and (count == Size(grid).numel() or side ** len(grid) == count)
