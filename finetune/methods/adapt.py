"""Modes of adaptation: LoRA on each tower, heads alone, all weights, or the same network from scratch.

An adapted model is a copy of the base around the same frozen tensors: it costs the memory of what is trained, the base
stays as it was, and any number of adapters can stand on one base at once.

LoRA: Hu et al. 2022, arXiv 2106.09685; DoRA: Liu et al. 2024, arXiv 2402.09353; rsLoRA: Kalajdzievski 2023,
arXiv 2312.03732; all three as peft has them.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from pydantic import Field
from torch import Tensor, nn

from finetune.methods.covariates import covariate_values
from foundation.config import Config
from foundation.data.batch import Batch
from foundation.errors import CheckpointError, ConfigError, nearest
from foundation.hub.model_folder import fingerprint
from foundation.model.multimodal import MultimodalModel
from foundation.model.towers.base import count_parameters
from foundation.model.view import FUSED, Key, View

EVERYTHING = "everything"
"""In place of the name of a subset of modalities: all that a patient has."""

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
        default="all-linear", description="Linear layers by name, or by the end of it: qkv, attention.query."
    )
    dora: bool = Field(default=False, description="Learn the length of each row of a matrix apart from its direction.")
    rslora: bool = Field(default=False, description="Scale by alpha / √rank, so that high ranks learn as fast.")
    towers: dict[str, TowerLora | None] = Field(
        default={}, description="Tower to what is different there; null leaves a tower as it is."
    )
    train: list[Bare] = Field(
        default=["projections", "fusion"], description="What is trained as it is; norms are those of adapted towers."
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


AdaptConfig = Annotated[Lora | Frozen | Full | Scratch, Field(discriminator="mode")]


@dataclass(frozen=True)
class Part:
    """What is trained of one part of an adapted model.

    Attributes:
        name: A tower, ``projections``, ``fusion`` or ``heads``.
        trained: Parameters that are.
        total: Parameters there are, added ones included.
        layers: Layers that have an adapter, alike ones as one name with ``*`` for their number, to how many.
    """

    name: str
    trained: int
    total: int
    layers: dict[str, int]


class Adapted(nn.Module):
    """A model and heads on its fused embedding.

    Args:
        model: Its frozen parameters may be shared with other models; they are never written to.
        heads: Task to its head, [B, D] to outputs.
        config: How the model was adapted.
        base: Fingerprint of the model before that.
        covariates: Omics modalities whose values the heads read too, behind the D of the embedding.
    """

    def __init__(
        self,
        model: MultimodalModel,
        heads: nn.ModuleDict,
        config: AdaptConfig,
        base: str,
        covariates: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.config = config
        self.base = base
        self.covariates = tuple(covariates)

    def forward(
        self, batch: Batch, views: Mapping[Key, View] | None = None, seed: int | None = None
    ) -> dict[Key, dict[str, Any]]:
        """Outputs of every head.

        Args:
            batch: Records.
            views: Fused views by name; by default one, `EVERYTHING`, of all that a record has.
            seed: Of the run, for towers that keep a random part of their tokens; None for evaluation.

        Returns:
            View to task to [B, ...].
        """
        return {
            view: {task: head(x_BE) for task, head in self.heads.items()}
            for view, x_BE in self.inputs(batch, views, seed).items()
        }

    def inputs(
        self, batch: Batch, views: Mapping[Key, View] | None = None, seed: int | None = None
    ) -> dict[Key, Tensor]:
        """What heads read, [B, E] of each view: fused embeddings, with covariates behind them."""
        shown: Mapping[Any, View] = {EVERYTHING: View(FUSED)} if views is None else views
        outputs = self.model(batch, shown, seed=seed)
        return {
            name: torch.cat([output.z_BD.float(), covariate_values(batch, self.covariates, shown[name])], dim=1)
            for name, output in outputs.items()
        }

    def train(self, mode: bool = True) -> Adapted:
        """Training or evaluation; what is not trained stays in evaluation.

        A part without trained parameters has no use for dropout, and a frozen norm must not follow its batches.
        """
        super().train(mode)
        parts = [*self.model.towers.children(), self.model.projections, self.model.fusion]
        norms = [module for module in self.model.modules() if hasattr(module, "running_mean")]
        for module in parts + norms:
            if not count_parameters(module)["trainable"]:
                module.eval()
        return self

    def state(self) -> dict[str, Tensor]:
        """All that is not the base's: trained parameters, heads, and statistics that training may move; not copied."""
        frozen = {
            name for name, parameter in self.model.named_parameters(prefix="model") if not parameter.requires_grad
        }
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name.startswith("heads.") or (name not in frozen and tensor.is_floating_point())
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            CheckpointError: It is of another adapter: names or shapes differ.
        """
        own = self.state()
        differ = sorted(
            {n for n in own.keys() & state.keys() if own[n].shape != state[n].shape} | own.keys() ^ state.keys()
        )
        if differ:
            raise CheckpointError(
                f"this adapter does not fit: {len(differ)} tensors differ, the first is {differ[0]}",
                fix="use the heads and settings that it was made with",
            )
        self.load_state_dict(state, strict=False)

    def merged(self) -> MultimodalModel:
        """A plain model that embeds as this one does: adapters are added into copies of their layers."""
        model = copy.deepcopy(self.model)
        for tower in model.towers.children():
            for name, layer in _adapted_layers(tower):
                layer.merge(safe_merge=True)
                tower.set_submodule(name, layer.get_base_layer())
            vars(tower).pop("peft_config", None)
        return model.requires_grad_(True).eval()

    def parts(self) -> list[Part]:
        """What is trained, part by part."""
        modules = dict(self.model.towers.named_children())
        modules |= {"projections": self.model.projections, "fusion": self.model.fusion, "heads": self.heads}
        return [_part(name, module) for name, module in modules.items()]

    def summary(self) -> str:
        """A table for a person to read before training."""
        parts = self.parts()
        rows = [("", "trained", "of"), *(row for part in parts for row in _rows(part))]
        rows.append(("together", f"{sum(p.trained for p in parts):,}", f"{sum(p.total for p in parts):,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
        return "\n".join(lines)


def leaving_blind(config: AdaptConfig, model: MultimodalModel, modalities: Iterable[str]) -> AdaptConfig:
    """The same config without adapters on towers that may see none of some modalities, where they would never learn."""
    blind = {spec.name: None for spec in model.specs if set(spec.modalities).isdisjoint(modalities)}
    if not isinstance(config, Lora) or not blind:
        return config
    return config.model_copy(update={"towers": {**config.towers, **blind}})


def adapt(
    model: MultimodalModel, config: AdaptConfig, heads: nn.ModuleDict, *, seed: int = 0, covariates: Sequence[str] = ()
) -> Adapted:
    """Make a model ready to be trained for tasks.

    Args:
        model: The base; it stays as it is.
        config: What is to be trained of it.
        heads: Task to its head; they become part of the result, and are always trained.
        seed: Of the run; decides the numbers that adapters, or a network from scratch, start with.
        covariates: Omics modalities whose values the heads read too.

    Raises:
        ConfigError: An adapter would be on nothing, or a tower is named that there is not.
    """
    base = fingerprint(model)
    device = next(model.parameters()).device
    with _random_numbers(seed):
        if isinstance(config, Scratch):
            model = MultimodalModel(model.config.self_contained()).to(device)  # type: ignore[call-overload]
        bare = _bare_parameters(model, config)
        model = _copy_around(model, bare)
        if isinstance(config, Lora):
            for name, settings in _settings(config, model).items():
                _attach(name, model.towers[name], settings)
    for name, parameter in model.named_parameters():
        if name in bare:
            parameter.requires_grad_(True)
    return Adapted(model, heads.to(device), config, base, covariates)


@contextmanager
def _random_numbers(seed: int) -> Iterator[None]:
    """Random numbers of this seed, leaving those of everybody else as they were; modules start on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _copy_around(model: MultimodalModel, bare: set[str]) -> MultimodalModel:
    """A copy that shares the tensors of all parameters but those in `bare`, and has them frozen."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().clone() if name in bare else parameter.detach(), False)
        for name, parameter in model.named_parameters()
    }
    return copy.deepcopy(model, memo)


def _bare_parameters(model: MultimodalModel, config: AdaptConfig) -> set[str]:
    """Names of the base's own parameters that are trained as they are."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if isinstance(config, Full | Scratch):
        return trainable
    chosen = {name for name in trainable if name.split(".")[0] in config.train}
    if "norms" in config.train:
        towers = _settings(config, model) if isinstance(config, Lora) else dict(model.towers.named_children())
        chosen |= {name for tower in towers for name in _norms(model.towers[tower], f"towers.{tower}")}
    return chosen & trainable


def _norms(tower: nn.Module, prefix: str) -> Iterator[str]:
    """Names of the parameters of a tower's norms."""
    for name, module in tower.named_modules(prefix=prefix):
        # By its name, because timm has norms of its own, which have no class in common with torch's.
        if "norm" in type(module).__name__.lower():
            yield from (f"{name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False))


def _settings(config: Lora, model: MultimodalModel) -> dict[str, Lora]:
    """Settings of each tower that gets adapters."""
    unknown = [name for name in config.towers if name not in model.towers]
    if unknown:
        raise ConfigError(
            f"no tower is called '{unknown[0]}'", where="adapt.towers", fix=nearest(unknown[0], model.towers.keys())
        )
    own = {name: config.towers.get(name, TowerLora()) for name in model.towers}
    settings = {
        name: config.model_copy(update=changes.model_dump(exclude_none=True))
        for name, changes in own.items()
        if changes is not None
    }
    if not settings:
        raise ConfigError("no tower is left to adapt", where="adapt.towers", fix="write `mode: frozen` for heads alone")
    return settings


def _attach(name: str, tower: nn.Module, settings: Lora) -> None:
    """Put adapters on the layers of a tower, in place."""
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


def _find_layers(tower_name: str, tower: nn.Module, targets: Targets) -> list[str]:
    """Names of the linear layers that targets mean.

    Raises:
        ConfigError: A target means none.
    """
    linear = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    wanted = linear if isinstance(targets, str) else targets
    found = {target: [name for name in linear if f".{name}".endswith(f".{target}")] for target in wanted}
    where = f"adapt.towers.{tower_name}"
    if not linear:
        raise ConfigError(f"tower '{tower_name}' has no linear layer", where=where, fix="leave it as it is: write null")
    for target, names in found.items():
        if not names:
            ends = {end for name in linear for end in (name, name.rpartition(".")[2])}
            raise ConfigError(
                f"no linear layer of tower '{tower_name}' is called '{target}'",
                where=f"{where}.targets",
                fix=f"{nearest(target, ends)}; its linear layers are {', '.join(_alike(linear))}",
            )
    return [name for name in linear if any(name in names for names in found.values())]


def _adapted_layers(tower: nn.Module) -> list[tuple[str, LoraLayer]]:
    return [(name, module) for name, module in tower.named_modules() if isinstance(module, LoraLayer)]


def _alike(names: Iterable[str]) -> Counter[str]:
    """Names with ``*`` in place of their numbers, to how many are alike: ``blocks.*.up``."""
    return Counter(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names)


def _part(name: str, module: nn.Module) -> Part:
    counts = count_parameters(module)
    layers = _alike(layer for layer, _ in _adapted_layers(module))
    return Part(name, counts["trainable"], counts["total"], dict(layers))


def _rows(part: Part) -> list[tuple[str, str, str]]:
    rows = [(part.name, f"{part.trained:,}", f"{part.total:,}")]
    return rows + [(f"  LoRA on {name}" + f" ({count})" * (count > 1), "", "") for name, count in part.layers.items()]
