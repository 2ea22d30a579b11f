"""MultimodalModel: a tower per image modality, one for all omics, a shared space, and a fused embedding."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

import foundation.model.fusion
import foundation.model.towers  # noqa: F401  (registers every tower)
from foundation.data.batch import Batch
from foundation.data.preprocessing import Preprocessing
from foundation.errors import ConfigError, nearest
from foundation.modality import OmicsFeatures
from foundation.model.fusion.base import fusions
from foundation.model.layers.projection import Projection
from foundation.model.towers.base import ImageTower, Tokens, towers
from foundation.model.view import FUSED, TowerOutput, TowerSpec, View
from foundation.randomness import draw


class MultimodalConfig(PretrainedConfig):
    """config.json of a model folder. Lists, not objects, hold what has an order: keys are sorted when written.

    Attributes:
        towers: For each tower its name and config; an image tower bears the name of its modality.
        fusion: Config of the fusion.
        width: D of the shared space.
        images: For each image modality its name, number of channels and shape.
        omics: For each omics modality its name, the names of its features, and the kind of their values.
    """

    model_type = "chiasma"

    def __init__(
        self,
        towers: list[list[Any]] | None = None,
        fusion: dict[str, Any] | None = None,
        width: int = 128,
        images: list[list[Any]] | None = None,
        omics: list[list[Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.towers = towers or []
        self.fusion = fusion or {}
        self.width = width
        self.images = images or []
        self.omics = omics or []
        super().__init__(**kwargs)

    @classmethod
    def of(cls, preprocessing: Preprocessing, towers: Mapping[str, Any], fusion: Any, width: int) -> MultimodalConfig:
        """The config of a model that reads what this preprocessing gives."""
        images, omics = preprocessing.images(), preprocessing.omics()
        return cls(
            towers=[[name, config.model_dump(mode="json")] for name, config in towers.items()],
            fusion=fusion.model_dump(mode="json"),
            width=width,
            images=[[name, len(scaling.channels), scaling.shape] for name, scaling in images.items()],
            omics=[[name, scaling.features, scaling.values] for name, scaling in omics.items()],
        )

    def self_contained(self) -> MultimodalConfig:
        """The same config without reference to any file: what is written beside the weights."""
        self_contained = copy.deepcopy(self)
        for entry in self_contained.towers:
            part = towers[entry[1]["tower"]]
            entry[1] = part.self_contained(part.Config.model_validate(entry[1])).model_dump(mode="json")
        return self_contained


@dataclass
class Embeddings:
    """What a model says of some records.

    Attributes:
        z: View (a tower, an omics modality alone, or ``fused``) to normalised [B, D], zeros where absent.
        present: View to bool [B].
    """

    z: dict[str, Tensor]
    present: dict[str, Tensor]


class MultimodalModel(PreTrainedModel):
    """Towers and their projections into one space.

    Raises:
        ConfigError: A tower serves no modality, or a modality has no tower.
    """

    config_class = MultimodalConfig
    base_model_prefix = "chiasma"
    main_input_name = "batch"

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__(config)
        sites = _find_sites(config)
        self.towers = nn.ModuleDict({site.name: _build_tower(site, config) for site in sites})
        self.sites = [_with_patches(site, self.towers[site.name]) for site in sites]
        self.projections = nn.ModuleDict(
            {name: Projection(tower.width, config.width) for name, tower in self.towers.items()}  # type: ignore[arg-type]
        )
        fusion = fusions[config.fusion["fusion"]]
        self.fusion = fusion(fusion.Config.model_validate(config.fusion), config.width, len(self.sites))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every part initialises itself when it is made."""

    def widths(self) -> dict[str, int]:
        """Tower to the width of its tokens, and ``fused`` to that of the shared space."""
        towers = {name: tower.width for name, tower in self.towers.items()}
        return {**towers, FUSED: self.config.width}  # type: ignore[dict-item]

    def blocks(self) -> list[nn.Module]:
        """The blocks of every tower, for what is done to each of them alone."""
        return [block for tower in self.towers.values() for block in tower.stack()]  # type: ignore[operator]

    def forward(self, batch: Batch, view: View, *, tokens: bool = False, seed: int | None = None) -> TowerOutput:
        """Look at a batch.

        Args:
            batch: Records.
            view: What may be seen of them, and by which tower, or ``fused``.
            tokens: Whether to hand out tokens.
            seed: Of the run, for towers that keep a random part of their tokens; None for evaluation.
        """
        if view.tower == FUSED:
            seen = [self._see(batch, replace(view, tower=s.name), False, seed) for s in self.sites]
            z_BMD = torch.stack([one.z_BD for one in seen], dim=1)
            present_BM = torch.stack([one.present_B for one in seen], dim=1)
            return TowerOutput(self.fusion(z_BMD, present_BM), present_BM.any(dim=1), view)
        return self._see(batch, view, tokens, seed)

    def _see(self, batch: Batch, view: View, tokens: bool, seed: int | None) -> TowerOutput:
        site = next(site for site in self.sites if site.name == view.tower)
        look = self._look_at_image if site.kind == "image" else self._look_at_omics
        made, present_B, rows = look(site, batch, view, seed)
        z_PD = functional.normalize(self.projections[site.name](made.pooled_BD).float(), dim=-1)
        # With nobody present the tower has looked at one stand-in, whose weight is zero: collectives cannot hang.
        weight = present_B[rows].to(z_PD.dtype)[:, None]
        z_BD = z_PD.new_zeros(len(batch), z_PD.shape[1]).index_copy(0, rows, z_PD * weight)
        if not tokens:
            return TowerOutput(z_BD, present_B, view)
        patches = None
        if site.kind == "image" and site.name in view.hidden:
            patches = self.towers[site.name].patches(batch.images[site.name][rows])  # type: ignore[operator]
        return TowerOutput(z_BD, present_B, view, made, rows, patches)

    def _look_at_image(
        self, site: TowerSpec, batch: Batch, view: View, seed: int | None
    ) -> tuple[Tokens, Tensor, Tensor]:
        del seed
        position = batch.modalities.index(site.name)
        present_B = batch.present_BM[:, position] & view.keep_BM[:, position]
        rows = _rows_or_stand_in(present_B)
        hidden = view.hidden.get(site.name)
        made = self.towers[site.name](
            batch.images[site.name][rows], batch.channels[site.name][rows], None if hidden is None else hidden[rows]
        )
        return made, present_B, rows

    def _look_at_omics(
        self, site: TowerSpec, batch: Batch, view: View, seed: int | None
    ) -> tuple[Tokens, Tensor, Tensor]:
        observed = {}
        for name in site.modalities:
            observed[name] = batch.observed[name] & view.keep_BM[:, [batch.modalities.index(name)]]
            if name in view.hidden:
                observed[name] = observed[name] & ~view.hidden[name]
        present_B = torch.stack([seen.any(dim=1) for seen in observed.values()]).any(dim=0)
        rows = _rows_or_stand_in(present_B)
        omics = {name: batch.omics[name][rows] for name in observed}
        observed = {name: seen[rows] for name, seen in observed.items()}
        if not bool(present_B.any()):
            first = site.modalities[0]
            observed[first] = observed[first].clone()
            observed[first][:, 0] = True
        tower = self.towers[site.name]
        draws = self._draws(tower, batch, rows, seed)
        return tower(omics, observed, draws), present_B, rows

    def _draws(self, tower: nn.Module, batch: Batch, rows: Tensor, seed: int | None) -> Tensor | None:
        if seed is None or tower.possible_tokens <= tower.max_tokens:  # type: ignore[operator]
            return None
        records = [batch.records[row] for row in rows.tolist()]
        epochs = batch.epochs[rows].tolist()
        uniform = draw(seed, "omics tokens", records, epochs, tower.possible_tokens)  # type: ignore[arg-type]
        return torch.from_numpy(uniform).to(rows.device)

    @torch.no_grad()
    def embed(self, batch: Batch) -> Embeddings:
        """Every view of a batch: each tower, each omics modality alone, and fused; deterministic."""
        everything = torch.ones_like(batch.present_BM)
        seen = {site.name: self(batch, View(site.name, everything)) for site in self.sites}
        for site in self.sites:
            if site.kind == "omics" and len(site.modalities) > 1:
                for name in site.modalities:
                    keep_BM = torch.zeros_like(everything)
                    keep_BM[:, batch.modalities.index(name)] = True
                    seen[name] = self(batch, View(site.name, keep_BM))
        seen[FUSED] = self(batch, View(FUSED, everything))
        return Embeddings({n: s.z_BD for n, s in seen.items()}, {n: s.present_B for n, s in seen.items()})


def _rows_or_stand_in(present_B: Tensor) -> Tensor:
    rows = present_B.nonzero()[:, 0]
    return rows if len(rows) else torch.zeros(1, dtype=torch.int64, device=present_B.device)


def _find_sites(config: MultimodalConfig) -> list[TowerSpec]:
    """Which tower serves which modalities."""
    channels = {name: count for name, count, _ in config.images}
    features = {name: OmicsFeatures(tuple(names), values) for name, names, values in config.omics}
    sites = []
    for name, tower in config.towers:
        if not issubclass(towers[tower["tower"]], ImageTower):
            sites.append(TowerSpec(name, "omics", tuple(features), tuple(features.values())))
            continue
        if name not in channels:
            raise ConfigError(
                f"tower '{name}' is for images, and no image modality is called so",
                where=f"towers.{name}",
                fix=nearest(name, channels),
            )
        sites.append(TowerSpec(name, "image", (name,), channels=channels[name]))
    _refuse_misfits(sites, [*channels, *features])
    return sites


def _refuse_misfits(sites: list[TowerSpec], modalities: list[str]) -> None:
    idle = [site.name for site in sites if not site.modalities]
    if idle:
        raise ConfigError(
            f"tower '{idle[0]}' is for omics, of which the cohort has none", where=f"towers.{idle[0]}", fix="remove it"
        )
    served = {modality for site in sites for modality in site.modalities}
    lonely = [name for name in modalities if name not in served]
    if lonely:
        raise ConfigError(
            f"modality '{lonely[0]}' has no tower",
            where="towers",
            fix="add one, or leave the modality out by naming the others in preprocessing.modalities",
        )


def _build_tower(site: TowerSpec, config: MultimodalConfig) -> nn.Module:
    settings: dict[str, Any] = next(entry[1] for entry in config.towers if entry[0] == site.name)
    part = towers[settings["tower"]]
    tower = part.Config.model_validate(settings)
    if site.kind == "omics":
        return part(tower, dict(zip(site.modalities, site.features, strict=True)))
    shape = next(shape for name, _, shape in config.images if name == site.name)
    return part(tower, site.channels, tuple(shape))


def _with_patches(site: TowerSpec, tower: nn.Module) -> TowerSpec:
    return replace(site, patch=tower.patch, grid=tower.grid) if isinstance(tower, ImageTower) else site


AutoConfig.register(MultimodalConfig.model_type, MultimodalConfig)
AutoModel.register(MultimodalConfig, MultimodalModel)
