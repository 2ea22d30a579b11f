"""Which views of a batch contrastive objectives compare: of two towers, or of disjoint parts of a patient's omics."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from foundation.collectives import name_hashes
from foundation.config import Config
from foundation.data.batch import Batch
from foundation.errors import ConfigError, nearest
from foundation.model.view import TowerOutput, TowerSpec, View
from foundation.objectives.base import Loss, Objective
from foundation.objectives.contrastive.contrast import Contrast
from foundation.objectives.contrastive.learned_scale import LearnedScale
from foundation.randomness import chosen, draw

PURPOSE = "disjoint omics"
HIDE = "hidden from"


class Weights(Config):
    """How much each kind of pair counts."""

    image_image: float = Field(default=1.0, ge=0, description="Two image towers.")
    image_omics: float = Field(default=1.0, ge=0, description="An image tower and an omics tower.")
    omics_omics: float = Field(default=1.0, ge=0, description="Some of a patient's omics and others.")


class PairwiseConfig(Config):
    """What every contrastive objective lets one choose."""

    pairs: Literal["auto"] | list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default="auto",
        description="Pairs of towers to compare; an omics tower twice compares disjoint parts of a patient's omics. "
        "auto: every image tower with every omics tower, omics towers with each other, and each with itself.",
    )
    weights: Weights = Field(default=Weights(), description="How much each kind of pair counts.")
    hidden_features: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Fraction of the features of omics that each view hides at random. With "
        "few patients it keeps towers from knowing them by heart.",
    )
    hidden_patches: float = Field(default=0.0, ge=0, lt=1, description="The same of the patches of images.")
    temperature: float = Field(default=0.07, gt=0, le=1, description="To start from; it is learned.")
    lowest_temperature: float = Field(default=0.01, gt=0, le=1, description="It is never learned below.")

    @model_validator(mode="after")
    def _start_within_the_bound(self) -> Self:
        if self.temperature < self.lowest_temperature:
            raise ValueError(f"temperature {self.temperature} is below lowest_temperature {self.lowest_temperature}")
        return self


@dataclass(frozen=True)
class Pair:
    """Two views of a batch to compare: of two towers, or of one tower at disjoint parts of a patient's omics."""

    one: TowerSpec
    other: TowerSpec
    weight: float

    @property
    def disjoint(self) -> bool:
        """Whether both views are of one tower."""
        return self.one == self.other

    @property
    def views(self) -> tuple[str, str]:
        """Names of the two views."""
        if self.disjoint:
            return f"{self.one.name}/one", f"{self.one.name}/other"
        return self.one.name, self.other.name

    @property
    def sees(self) -> bool:
        """Whether one side is an image."""
        return "image" in (self.one.kind, self.other.kind)

    def complete(self, present_BM: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
        """Bool [B], which records have something for both sides by themselves."""
        one_B, other_B = self._counts(present_BM, modalities)
        return one_B > 1 if self.disjoint else (one_B > 0) & (other_B > 0)

    def _counts(self, present_BM: np.ndarray, modalities: Sequence[str]) -> list[np.ndarray]:
        """Of each side, how many of its modalities each record has."""
        served = [[name in spec.modalities for name in modalities] for spec in (self.one, self.other)]
        return [present_BM[:, of_spec].sum(axis=1) for of_spec in served]

    def patients(self, present_BM: np.ndarray, modalities: Sequence[str], patients: np.ndarray) -> int:
        """Patients who have something for both sides, in one scan or in several.

        Args:
            present_BM: Bool, what each record has.
            modalities: Names of the axis M.
            patients: [B] int from 0, equal for records of one patient.
        """
        one_B, other_B = self._counts(present_BM, modalities)
        if self.disjoint:
            return int(np.count_nonzero(np.bincount(patients[one_B > 1])))
        count = patients.max(initial=-1) + 1
        one, other = (np.bincount(patients[here_B > 0], minlength=count) for here_B in (one_B, other_B))
        return int(np.count_nonzero(one * other))

    @property
    def name(self) -> str:
        """For logs, such as ``mri~omics``."""
        return f"{self.one.name}~{self.other.name}"


def find_pairs(config: PairwiseConfig, specs: Sequence[TowerSpec]) -> list[Pair]:
    """The pairs that a config asks for, of the towers there are.

    Raises:
        ConfigError: A pair names no tower, an image tower twice or a lone omics modality twice, or there are no pairs.
    """
    known = {spec.name: spec for spec in specs}
    if config.pairs == "auto":
        images = [spec.name for spec in specs if spec.kind == "image"]
        omics = [spec for spec in specs if spec.kind == "omics"]
        wanted = [[image, spec.name] for image in images for spec in omics]
        wanted += [[one.name, other.name] for one, other in combinations(omics, 2)]
        wanted += [[spec.name, spec.name] for spec in omics if len(spec.modalities) > 1]
    else:
        wanted = config.pairs
    if len({tuple(sorted(pair)) for pair in wanted}) < len(wanted):
        raise ConfigError("a pair is named twice", where="pairs", fix="name each pair once")
    pairs = [pair for pair in (_pair(names, known, config.weights) for names in wanted) if pair.weight > 0]
    if not pairs:
        raise ConfigError(
            f"nothing to compare: towers are {', '.join(sorted(known)) or 'none'}",
            where="pairs",
            fix="have an image tower and an omics tower, or two omics modalities, with a weight above zero",
        )
    return pairs


def _pair(names: list[str], known: Mapping[str, TowerSpec], weights: Weights) -> Pair:
    for name in names:
        if name not in known:
            raise ConfigError(f"no tower is called '{name}'", where="pairs", fix=nearest(name, known))
    one, other = (known[name] for name in names)
    if one == other and len(one.modalities) < 2:
        raise ConfigError(
            f"tower '{one.name}' cannot be compared with itself",
            where="pairs",
            fix="only a tower of two or more omics modalities has disjoint parts to compare",
        )
    return Pair(one, other, getattr(weights, "_".join(sorted([one.kind, other.kind]))))


def disjoint(
    present_BM: np.ndarray, patients: Sequence[str], epochs: Sequence[int] | np.ndarray, seed: int
) -> np.ndarray:
    """Deal out each record's modalities to two sides, at random, neither of them empty where it has two or more.

    A record with a single modality has it on one side, drawn too. Draws are those of the patient, not of the record,
    so that scans of one patient with the same modalities are dealt out alike: they are positives of one another, and
    sharing a modality would make them trivially so.

    Args:
        present_BM: Bool.
        patients: [B].
        epochs: [B].
        seed: Of the run.

    Returns:
        [2, B, M] bool, the two sides.
    """
    modalities = present_BM.shape[1]
    draws = draw(seed, PURPOSE, patients, epochs, modalities + 1)
    order = np.argsort(np.where(present_BM, draws[:, :modalities], 2.0), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable")
    count = present_BM.sum(axis=1)
    # Of n modalities the first 1 to n - 1 go to one side; of a single one, the first 0 or 1.
    size = np.where(count > 1, 1 + np.floor(draws[:, -1] * (count - 1)), np.floor(draws[:, -1] * 2))
    one = present_BM & (ranks < size[:, None])
    return np.stack([one, present_BM & ~one])


class PairwiseObjective(Objective):
    """An objective that is a weighted sum over pairs of views."""

    def __init__(self, config: PairwiseConfig, specs: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
        super().__init__(config, specs, widths)
        self.pairs = find_pairs(config, specs)
        self.hidden = {"image": config.hidden_patches, "omics": config.hidden_features}
        self.scale = LearnedScale(1 / config.temperature, 1 / config.lowest_temperature)

    def views(self, batch: Batch, seed: int) -> dict[str, View]:
        """A view of each tower that a pair names, or two of its disjoint parts."""
        views = {}
        for pair in self.pairs:
            specs = (pair.one, pair.other)
            sides = _halves(pair.one, batch, seed) if pair.disjoint else ({}, {})
            for name, spec, keep in zip(pair.views, specs, sides, strict=True):
                views[name] = View(spec.name, keep=keep, hidden=self._hide(name, spec, batch, seed))
        return views

    def _hide(self, view: str, spec: TowerSpec, batch: Batch, seed: int) -> dict[str, Tensor]:
        """What a view hides, drawn for each record and epoch: Li et al. 2023 (FLIP), Bahri et al. 2022 (SCARF)."""
        hidden, fraction = {}, self.hidden[spec.kind]
        for name in spec.modalities if fraction else ():
            count = math.prod(spec.grid) if spec.kind == "image" else batch.observed[name].shape[1]
            mask = chosen(seed, f"{HIDE} {view}: {name}", batch.records, batch.host_epochs, count, fraction)
            hidden[name] = torch.from_numpy(mask).to(batch.device)
        return hidden

    def forward(self, outputs: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """The weighted sum of the pairs' losses; facts are how many rows had a positive, and the temperature."""
        patients_B = name_hashes(batch.patients)
        scale = self.scale()
        results = [
            (pair, self.contrast(outputs[pair.views[0]], outputs[pair.views[1]], patients_B, scale))
            for pair in self.pairs
        ]
        value = torch.stack([pair.weight * result.value for pair, result in results]).sum()
        facts = {f"{pair.name}/rows": result.rows for pair, result in results}
        facts["rows"] = torch.stack([result.rows for _, result in results]).sum()
        facts["temperature"] = 1 / scale.detach()
        return Loss(value, {pair.name: result.value.detach() for pair, result in results}, facts)

    def paired(self, present_BM: np.ndarray, modalities: Sequence[str], patients: np.ndarray) -> dict[str, int]:
        """How many patients each pair can learn from; see `Pair.patients`."""
        return {pair.name: pair.patients(present_BM, modalities, patients) for pair in self.pairs}

    def complete(self, present_BM: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
        """Bool [B], which records are a pair: of a contrast with an image, where there is one, else of any."""
        pairs = [pair for pair in self.pairs if pair.sees] or self.pairs
        return np.any([pair.complete(present_BM, modalities) for pair in pairs], axis=0)

    @abstractmethod
    def contrast(self, one: TowerOutput, other: TowerOutput, patients_B: Tensor, scale: Tensor) -> Contrast:
        """Compare two views; `patients_B` says which records are of one patient."""


def _halves(spec: TowerSpec, batch: Batch, seed: int) -> list[dict[str, Tensor]]:
    """For each side, the records that may show a modality."""
    served = [batch.modalities.index(name) for name in spec.modalities]
    sides = disjoint(batch.host_present_BM[:, served], batch.patients, batch.host_epochs, seed)
    return [dict(zip(spec.modalities, torch.from_numpy(side_BM).unbind(1), strict=True)) for side_BM in sides]
