"""The modes of adaptation and their settings: LoRA on each tower, heads alone, all weights, or from scratch.

LoRA: Hu et al. 2022, arXiv 2106.09685; DoRA: Liu et al. 2024, arXiv 2402.09353; rsLoRA: Kalajdzievski 2023,
arXiv 2312.03732; all three as peft has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from foundation.config import Config
from foundation.model.multimodal import MultimodalModel

Bare = Literal["projections", "fusion", "norms"]

Targets = Literal["all-linear"] | Annotated[list[str], Field(min_length=1)]


class TowerLora(Config):
    """What is different on one tower; null is as for all towers."""

    rank: int | None = Field(default=None, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    targets: Targets | None = None
    dora: bool | None = None
    rslora: bool | None = None


class Lora(Config):
    """Low-rank adapters on the towers."""

    mode: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0, description="What is added is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of what goes into the added matrices.")
    targets: Targets = Field(
        default="all-linear",
        description="Layers by name, or by the end of it: qkv, attention.query, conv_pw. all-linear: every linear "
        "layer; of a network whose blocks have none, its convolutions too.",
    )
    dora: bool = Field(
        default=False,
        description="Learn the length of each row of a matrix, or of each kernel, apart from its direction.",
    )
    rslora: bool = Field(default=False, description="Scale by alpha / √rank, so that high ranks learn as fast.")
    towers: dict[str, TowerLora | None] = Field(
        default={}, description="Tower to what is different there; null leaves a tower as it is."
    )
    train: list[Bare] = Field(
        default=["projections"],
        description="What is trained as it is; norms are those of adapted towers, whose statistics of batches stay.",
    )


class Frozen(Config):
    """Heads alone: a probe of what the model knows already."""

    mode: Literal["frozen"] = "frozen"
    train: list[Bare] = Field(default=[], description="What is trained beside the heads.")


class Full(Config):
    """Every parameter."""

    mode: Literal["full"] = "full"


class Scratch(Config):
    """Every parameter, from new random numbers: the same network without pretraining."""

    mode: Literal["scratch"] = "scratch"


def _of_earlier_versions(config: Any) -> Any:
    """`scratch` was called `none`; configs that say so are still read."""
    return {**config, "mode": "scratch"} if isinstance(config, dict) and config.get("mode") == "none" else config


AdaptConfig = Annotated[
    Lora | Frozen | Full | Scratch, Field(discriminator="mode"), BeforeValidator(_of_earlier_versions)
]


def leaving_blind(config: AdaptConfig, model: MultimodalModel, modalities: Iterable[str]) -> AdaptConfig:
    """The same config without adapters on towers that may see none of some modalities, where they would never learn."""
    blind = {spec.name: None for spec in model.specs if set(spec.modalities).isdisjoint(modalities)}
    if not isinstance(config, Lora) or not blind:
        return config
    return config.model_copy(update={"towers": {**config.towers, **blind}})
