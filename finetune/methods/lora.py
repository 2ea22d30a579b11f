"""LoRA on the layers of a tower, as peft has it: which layers take it, how it is put on them, and how it is merged.

peft's convolutions are put right in two places: what is added is dilated as its layer is, and merges in 3D too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from finetune.methods.modes import Lora, Targets
from foundation.errors import ConfigError, nearest

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


def attach(name: str, tower: nn.Module, settings: Lora) -> None:
    """Put adapters on the layers of a tower, in place.

    Raises:
        ConfigError: A target means no layer.
    """
    layers = _find_layers(name, tower, settings.targets)
    peft = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        # As a pattern, which has to fit whole; a name in a list would also fit where it is the end of another.
        target_modules="|".join(map(re.escape, layers)),
        use_dora=settings.dora,
        use_rslora=settings.rslora,
    )
    inject_adapter_in_model(peft, tower)
    for _, layer in adapted_layers(tower):
        base = layer.get_base_layer()
        if isinstance(base, CONVOLUTIONS):
            layer.lora_A["default"].dilation = base.dilation  # type: ignore[assignment]


def merge(tower: nn.Module) -> None:
    """Add the adapters of a tower into its layers, in place; it is then a plain one."""
    for name, layer in adapted_layers(tower):
        if isinstance(layer.get_base_layer(), CONVOLUTIONS):
            # peft's own fails on kernels in 3D that begin with 1 x 1.
            layer.get_delta_weight = lambda adapter, of=layer: _added_kernel(of, adapter)  # type: ignore[assignment]
        layer.merge(safe_merge=True)  # type: ignore[operator]
        tower.set_submodule(name, layer.get_base_layer())
    vars(tower).pop("peft_config", None)


def adapted_layers(tower: nn.Module) -> list[tuple[str, LoraLayer]]:
    """Names and layers that have an adapter."""
    return [(name, module) for name, module in tower.named_modules() if isinstance(module, LoraLayer)]


def unsuited(tower: nn.Module) -> list[str]:
    """Names of convolutions that take no adapter, of a tower whose others have one."""
    if not any(isinstance(layer.get_base_layer(), CONVOLUTIONS) for _, layer in adapted_layers(tower)):
        return []
    modules = tower.named_modules()
    return [name for name, module in modules if isinstance(module, CONVOLUTIONS) and not _takes_adapter(module)]


def alike(names: Iterable[str]) -> Counter[str]:
    """Names with ``*`` in place of their numbers, to how many are alike: ``blocks.*.up``."""
    return Counter(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names)


def _added_kernel(layer: LoraLayer, adapter: str) -> Tensor:
    """What an adapter adds to the kernel of a convolution, [D, C, ...]: a kernel to R channels, then 1 x 1 to D."""
    down: Any = layer.lora_A[adapter]
    up: Any = layer.lora_B[adapter]
    return (up.weight.flatten(1) @ down.weight.flatten(1)).unflatten(1, down.weight.shape[1:]) * layer.scaling[adapter]


def _takes_adapter(module: nn.Module) -> bool:
    """Whether LoRA fits: what is added to a convolution in groups is none in groups, and could not be merged.

    Nor to one of a class of its own, which may do more with its weights, or that is padded with anything but zeros.
    """
    if type(module) in CONVOLUTIONS:
        return module.groups == 1 and module.padding_mode == "zeros"  # type: ignore[union-attr]
    return isinstance(module, nn.Linear)


def _candidates(tower: nn.Module) -> list[str]:
    """Names of the layers that adapters may be on: linear ones; in a tower whose blocks have none, convolutions too.

    So a transformer's patch embedding stays as it is, and ConvNeXt, most of which is linear, is adapted there.
    """
    blocks: list[nn.Module] = tower.stack()  # type: ignore[operator]
    of_blocks = any(isinstance(module, nn.Linear) for block in blocks for module in block.modules())
    kinds = nn.Linear if of_blocks else (nn.Linear, *CONVOLUTIONS)
    return [name for name, module in tower.named_modules() if isinstance(module, kinds) and _takes_adapter(module)]


def _find_layers(tower_name: str, tower: nn.Module, targets: Targets) -> list[str]:
    """Names of the layers that targets mean.

    Raises:
        ConfigError: A target means none.
    """
    layers = _candidates(tower)
    wanted = layers if isinstance(targets, str) else targets
    found = {target: [name for name in layers if f".{name}".endswith(f".{target}")] for target in wanted}
    where = f"adapt.towers.{tower_name}"
    if not layers:
        what = f"tower '{tower_name}' has no linear layer and no convolution that takes an adapter"
        raise ConfigError(what, where=where, fix="leave it as it is: write null")
    for target, names in found.items():
        if not names:
            ends = {end for name in layers for end in (name, name.rpartition(".")[2])}
            raise ConfigError(
                f"no layer of tower '{tower_name}' that takes an adapter is called '{target}'",
                where=f"{where}.targets",
                fix=f"{nearest(target, ends)}; those that do are {', '.join(alike(layers))}",
            )
    return [name for name in layers if any(name in names for names in found.values())]
