"""MultimodalModel: towers for images and omics, a shared space, and a fused embedding; all views in one forward."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

import foundation.model.fusion
import foundation.model.towers  # noqa: F401  (registers every tower)
from foundation.data.batch import Batch
from foundation.errors import ConfigError, nearest
from foundation.modality import ImageModality, Modality, OmicsModality
from foundation.model.fusion.base import fusions
from foundation.model.layers.projection import Projection
from foundation.model.layers.values import at_least_single, masked
from foundation.model.towers.base import ImageTower, OmicsTower, Tokens, TowerConfig, towers
from foundation.model.view import FUSED, Key, Pooled, TowerOutput, TowerSpec, View
from foundation.randomness import draw

FORMAT = 2
"""Of config.json and of the names of tensors; a folder of another format is refused."""

_MODALITY = TypeAdapter(Modality)


class MultimodalConfig(PretrainedConfig):
    """config.json of a model folder. Lists, not objects, hold what has an order: keys are sorted when written.

    Attributes:
        towers: For each tower its name and config.
        fusion: Config of the fusion.
        width: D of the shared space.
        modalities: For each modality its name and what it is; see `foundation.modality`.
        format_version: Of the folder.
        origins: For each tower that began with weights of others, where they come from; see `Loaded.origin`. None
            where it was not recorded.
        base: What was adapted, its name and licence; None where nothing was, or where it was not recorded.
    """

    model_type = "chiasma"

    def __init__(
        self,
        towers: list[list[Any]] | None = None,
        fusion: dict[str, Any] | None = None,
        width: int = 128,
        modalities: list[list[Any]] | None = None,
        format_version: int | None = None,
        origins: dict[str, dict[str, str]] | None = None,
        base: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.towers = towers or []
        self.fusion = fusion or {}
        self.width = width
        self.modalities = modalities or []
        self.format_version = format_version
        self.origins = origins
        self.base = base
        super().__init__(**kwargs)

    @classmethod
    def of(
        cls, modalities: Mapping[str, ImageModality | OmicsModality], towers: Mapping[str, Any], fusion: Any, width: int
    ) -> MultimodalConfig:
        """The config of a model that reads these modalities."""
        return cls(
            towers=[[name, config.model_dump(mode="json")] for name, config in towers.items()],
            fusion=fusion.model_dump(mode="json"),
            width=width,
            modalities=[[name, modality.model_dump(mode="json")] for name, modality in modalities.items()],
            format_version=FORMAT,
            origins={},
        )

    def described(self) -> dict[str, ImageModality | OmicsModality]:
        """Name of each modality to what it is."""
        return {name: _MODALITY.validate_python(modality) for name, modality in self.modalities}

    def self_contained(self) -> MultimodalConfig:
        """The same config without reference to any file: what is written beside the weights."""
        config = copy.deepcopy(self)
        for entry in config.towers:
            part = towers[entry[1]["tower"]]
            entry[1] = part.self_contained(part.Config.model_validate(entry[1])).model_dump(mode="json")
        return config


class MultimodalModel(PreTrainedModel):
    """Towers and their projections into one space.

    Raises:
        ConfigError: A tower serves no modality, or a modality has no tower or several.
    """

    config_class = MultimodalConfig
    base_model_prefix = "chiasma"
    main_input_name = "batch"

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__(config)
        served = _who_serves_what(config)
        self.towers = nn.ModuleDict({name: _build_tower(name, served[name], config) for name, _ in config.towers})
        self.specs = [_spec(name, served[name], self.towers[name]) for name, _ in config.towers]
        self.projections = nn.ModuleDict(
            {name: Projection(tower.width, config.width) for name, tower in self.towers.items()}  # type: ignore[arg-type]
        )
        if loaded := {name: tower.weights.origin() for name, tower in self.towers.items() if tower.weights}:  # type: ignore[union-attr]
            config.origins = loaded
        fusion = fusions[config.fusion["fusion"]]
        self.fusion = fusion(fusion.Config.model_validate(config.fusion), config.width, len(self.specs))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every part initialises itself when it is made."""

    def widths(self) -> dict[str, int]:
        """Tower to the width of its tokens, and ``fused`` to that of the shared space."""
        towers = {name: tower.width for name, tower in self.towers.items()}
        return {**towers, FUSED: self.config.width}  # type: ignore[dict-item]

    def pooled(self, kinds: Sequence[Pooled]) -> dict[str, int]:
        """Name to width of what `TowerOutput.pooled_BE` holds for a view that asks for these, in its order."""
        found = {}
        for spec in self.specs:
            names = {"towers": [f"{spec.name} tower"], "modalities": [f"{name} embedding" for name in spec.several()]}
            found |= {name: self.widths()[spec.name] for kind in kinds for name in names[kind]}
        return found

    def blocks(self) -> list[nn.Module]:
        """The blocks of every tower, for what is done to each of them alone."""
        return [block for tower in self.towers.values() for block in tower.stack()]  # type: ignore[operator]

    def every_view(self) -> dict[str, View]:
        """Views of all that a record has: by each tower, of each omics modality alone, and fused."""
        views = {spec.name: View(spec.name) for spec in self.specs}
        for spec in self.specs:
            if len(spec.modalities) > 1:
                views |= {name: View(spec.name, (name,)) for name in spec.modalities}
        return {**views, FUSED: View(FUSED)}

    def forward(self, batch: Batch, views: Mapping[Key, View], seed: int | None = None) -> dict[Key, TowerOutput]:
        """Make views of a batch; a tower runs once for views that show it the same.

        Args:
            batch: Records; there may be none.
            views: By name.
            seed: Of the run, for towers that keep a random part of their tokens; None for evaluation.
        """
        specs = {spec.name: spec for spec in self.specs}
        read = {view.key(specs[view.tower]) for view in views.values() if view.tower != FUSED}
        made: dict[Hashable, TowerOutput] = {}

        def once(view: View, spec: TowerSpec) -> TowerOutput:
            key = view.key(spec)
            if key not in made:
                output = self._run_tower(batch, view, spec, seed)
                # What is only fused is kept without its tokens, so that many views fit in memory.
                made[key] = output if key in read else replace(output, tokens=None, rows=None)
            return made[key]

        return {
            name: self._fuse([once(view, spec) for spec in self.specs], view)
            if view.tower == FUSED
            else replace(once(view, specs[view.tower]), view=view, pooled_BE=None)
            for name, view in views.items()
        }

    def _fuse(self, parts: list[TowerOutput], view: View) -> TowerOutput:
        present_BM = torch.stack([part.present_B for part in parts], dim=1)
        z_BD = self.fusion(torch.stack([part.z_BD for part in parts], dim=1), present_BM)
        pooled_BE = None
        if view.pooled:
            pooled_BE = torch.cat([part.pooled_BE for part in parts if part.pooled_BE is not None], dim=1)
        return TowerOutput(z_BD, present_BM.any(dim=1), view, pooled_BE=pooled_BE)

    def _run_tower(self, batch: Batch, view: View, spec: TowerSpec, seed: int | None) -> TowerOutput:
        """One tower on the records that have something for it, or on a dummy row, so that collectives cannot hang."""
        rows = _rows(batch, view, spec).to(batch.device)
        run = self._read_image if spec.kind == "image" else self._read_omics
        tokens, visible_P = run(batch, view, spec, rows, seed)
        z_PD = functional.normalize(at_least_single(self.projections[spec.name](tokens.pooled_BD)), dim=-1)
        pooled_PE = torch.cat([z_PD[:, :0], *_pooled(tokens, spec, view)], dim=1)
        z_BD, pooled_BE = (x_PD.new_zeros(len(batch), x_PD.shape[1]) for x_PD in (z_PD, pooled_PE))
        present_B = torch.zeros(len(batch), dtype=torch.bool, device=rows.device)
        if not len(rows):
            return TowerOutput(z_BD + 0 * z_PD, present_B, view, tokens.first(0), rows, pooled_BE)
        z_BD = z_BD.index_copy(0, rows, z_PD * visible_P[:, None])
        pooled_BE = pooled_BE.index_copy(0, rows, pooled_PE * visible_P[:, None])
        return TowerOutput(z_BD, present_B.index_copy(0, rows, visible_P), view, tokens, rows, pooled_BE)

    def _read_image(
        self, batch: Batch, view: View, spec: TowerSpec, rows: Tensor, seed: int | None
    ) -> tuple[Tokens, Tensor]:
        name, _ = spec.image
        tower, hidden_BT = self.towers[spec.name], view.hidden.get(name)
        x_PCXYZ, channels_PC = _of_rows(batch.images[name], rows), _of_rows(batch.channels[name], rows)
        tokens = tower(x_PCXYZ, channels_PC, None if hidden_BT is None else _of_rows(hidden_BT, rows))
        if view.targets:
            tokens.extras["patches"] = tower.patches(x_PCXYZ)  # type: ignore[operator]
        return tokens, torch.ones(len(rows), dtype=torch.bool, device=rows.device)

    def _read_omics(
        self, batch: Batch, view: View, spec: TowerSpec, rows: Tensor, seed: int | None
    ) -> tuple[Tokens, Tensor]:
        observed = {name: _of_rows(view.shown(name, batch.observed[name]), rows) for name in spec.modalities}
        visible_P = torch.stack([each.any(dim=1) for each in observed.values()]).any(dim=0)
        omics = {name: _of_rows(batch.omics[name], rows) for name in observed}
        tower = self.towers[spec.name]
        return tower(omics, observed, self._draws(tower, batch, rows, seed)), visible_P

    def _draws(self, tower: nn.Module, batch: Batch, rows: Tensor, seed: int | None) -> Tensor | None:
        assert isinstance(tower, OmicsTower)
        if seed is None or tower.possible_tokens <= tower.max_tokens or not len(rows):
            return None
        at = rows.tolist()
        uniform = draw(
            seed, "omics tokens", [batch.records[row] for row in at], batch.host_epochs[at], tower.possible_tokens
        )
        return torch.from_numpy(uniform).to(rows.device)


def _pooled(tokens: Tokens, spec: TowerSpec, view: View) -> list[Tensor]:
    """What a view asks for of a tower's own embeddings, each [P, D]; zeros of a modality that has no token."""
    found = []
    modality_PT = tokens.modality_T.expand(tokens.real_BT.shape)
    for kind in view.pooled:
        if kind == "towers":
            found.append(tokens.pooled_BD)
            continue
        for number, _ in enumerate(spec.several()):
            own_PT1 = (tokens.real_BT & (modality_PT == number))[..., None]
            found.append(masked(tokens.tokens_BTD, own_PT1).sum(dim=1) / own_PT1.sum(dim=1).clamp(min=1))
    return found


def _rows(batch: Batch, view: View, spec: TowerSpec) -> Tensor:
    """Records that have something to show; known on the host, so that nothing waits for the device."""
    here_B = np.zeros(len(batch), dtype=bool)
    for name in view.seen_by(spec):
        present_B = batch.host_present_BM[:, batch.modalities.index(name)]
        here_B |= present_B & view.keep[name].numpy() if name in view.keep else present_B
    return torch.from_numpy(np.flatnonzero(here_B))


def _of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Some rows; where there are none, a dummy row of zeros."""
    return values[rows] if len(rows) else values.new_zeros(1, *values.shape[1:])


def _who_serves_what(config: MultimodalConfig) -> dict[str, dict[str, ImageModality | OmicsModality]]:
    """Tower to the modalities that it reads.

    A tower reads those that its config names; else an image tower the one of its own name, and an omics tower all omics
    modalities that no other tower names.
    """
    known = config.described()
    configs = {name: towers[entry["tower"]].Config.model_validate(entry) for name, entry in config.towers}
    named = {modality for tower in configs.values() for modality in tower.modalities or ()}
    free = [name for name, modality in known.items() if modality.kind == "omics" and name not in named]
    served = {}
    for name, tower in configs.items():
        of_image = issubclass(towers[tower.part], ImageTower)
        default = [name] if of_image else free
        served[name] = _modalities(name, tower, default, known, "image" if of_image else "omics")
    _refuse_unserved(served, known)
    return served


def _modalities(
    name: str, config: TowerConfig, default: list[str], known: Mapping[str, ImageModality | OmicsModality], kind: str
) -> dict[str, ImageModality | OmicsModality]:
    """What one tower reads, refusing what it cannot."""
    wanted, where = config.modalities or default, f"towers.{name}"
    of_kind = [modality for modality in known if known[modality].kind == kind]
    if not wanted:
        raise ConfigError(f"tower '{name}' is for omics, and no modality is left for it", where=where, fix="remove it")
    for modality in wanted:
        if modality not in of_kind:
            raise ConfigError(
                f"tower '{name}' reads {kind} modalities, and none is called '{modality}'",
                where=f"{where}.modalities",
                fix=f"{nearest(modality, of_kind)}; or say with `modalities` what the tower reads",
            )
    if name == FUSED or (name in known and wanted != [name]):
        what = f"tower '{name}' is called like {'all towers together' if name == FUSED else 'a modality'}"
        raise ConfigError(what, where=where, fix="give it another name, since both have embeddings")
    if kind == "image" and len(wanted) > 1:
        raise ConfigError(f"tower '{name}' reads one image modality", where=f"{where}.modalities", fix="name one")
    return {modality: known[modality] for modality in known if modality in wanted}


def _refuse_unserved(served: Mapping[str, Mapping[str, Any]], known: Mapping[str, Any]) -> None:
    for modality in known:
        by = [name for name, modalities in served.items() if modality in modalities]
        if not by:
            fix = "add one, or leave the modality out by naming the others in preprocessing.modalities"
            raise ConfigError(f"modality '{modality}' has no tower", where="towers", fix=fix)
        if len(by) > 1:
            what = f"modality '{modality}' is read by two towers, '{by[0]}' and '{by[1]}'"
            raise ConfigError(what, where=f"towers.{by[1]}.modalities", fix="let one of them read it")


def _build_tower(
    name: str, modalities: Mapping[str, ImageModality | OmicsModality], config: MultimodalConfig
) -> nn.Module:
    settings: dict[str, Any] = next(entry[1] for entry in config.towers if entry[0] == name)
    part = towers[settings["tower"]]
    tower = part.Config.model_validate(settings)
    if not issubclass(part, ImageTower):
        return part(tower, modalities)
    [image] = modalities.values()
    assert isinstance(image, ImageModality)
    return part(tower, len(image.channels), tuple(image.shape))


def _spec(name: str, modalities: dict[str, ImageModality | OmicsModality], tower: nn.Module) -> TowerSpec:
    if isinstance(tower, ImageTower):
        return TowerSpec(name, modalities, tower.patch, tower.grid)
    return TowerSpec(name, modalities)


AutoConfig.register(MultimodalConfig.model_type, MultimodalConfig)
AutoModel.register(MultimodalConfig, MultimodalModel)
