"""EfficientNets in the names of EfficientNet-PyTorch and MONAI put under those of timm; both compute the same."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

NAME = "EfficientNet-PyTorch"
SIGN = re.compile(r"(?P<before>(?:.*\.)?)_blocks\.0\.(?:0\.)?_depthwise_conv\.weight")
BLOCK = re.compile(r"_blocks\.(\d+)\.(?:(\d+)\.)?(\w+)\.(.+)")
AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
INSIDE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
WITHOUT_EXPANSION = {**INSIDE, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def in_names_of_timm(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of a file, without a prefix; None where it is none of these, or the tower no EfficientNet.

    Args:
        own: The tower's tensors, which say how its blocks are dealt to stages: the file may number them through.
        found: The file's.
    """
    sign = next(filter(None, map(SIGN.fullmatch, found)), None)
    if sign is None or "blocks.0.0.conv_dw.weight" not in own:
        return None
    before = sign["before"]
    inside = {name[len(before) :]: tensor for name, tensor in found.items() if name.startswith(before)}
    numbered = sorted({(int(b[1]), int(b[2] or 0)) for b in map(BLOCK.fullmatch, inside) if b})
    stages = sorted({tuple(map(int, name.split(".")[1:3])) for name in own if name.startswith("blocks.")})
    # Of another depth, nobody could tell which block is which: none is taken, and the file is refused for it.
    place = dict(zip(numbered, stages, strict=True)) if len(numbered) == len(stages) else {}
    return {_renamed(name, inside, place): tensor for name, tensor in inside.items()}


def _renamed(name: str, found: Mapping[str, Tensor], place: Mapping[tuple[int, int], tuple[int, ...]]) -> str:
    block = BLOCK.fullmatch(name)
    if block is None:
        part, _, rest = name.partition(".")
        return f"{AROUND.get(part, part)}.{rest}"
    number = int(block[1]), int(block[2] or 0)
    if number not in place:
        return name
    stage, position = place[number]
    names = INSIDE if f"{name[: block.start(3)]}_expand_conv.weight" in found else WITHOUT_EXPANSION
    return f"blocks.{stage}.{position}.{names.get(block[3], block[3])}.{block[4]}"
