"""The cohort of a plan, as far as its size goes: read of prepared cohorts, or of YAML files of shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from foundation.cohort.manifest import ImageEntry
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united_forms import refuse_disagreement, united_features
from foundation.config import Config, load_config
from foundation.errors import ConfigError, nearest
from foundation.files.cache import CacheConfig
from foundation.modality import ImageModality, OmicsModality

FLOAT = 4
"""Bytes of a value of omics, as stored and in a batch, and of a voxel in a batch."""


class ImageShape(Config):
    """An image modality, as far as its size goes."""

    kind: Literal["image"]
    shape: list[int] = Field(min_length=2, max_length=3, description="Voxels per axis.")
    channels: int = Field(default=1, ge=1)
    stored_as: Literal["float32", "float16", "int16", "uint8"] = "float32"

    @property
    def stored(self) -> int:
        """Bytes of a record."""
        return math.prod(self.shape) * self.channels * np.dtype(self.stored_as).itemsize


class OmicsShape(Config):
    """An omics modality, as far as its size goes."""

    kind: Literal["omics"]
    features: int = Field(ge=1, description="The n-th features of all modalities are taken to be the same gene.")
    values: Literal["continuous", "binary", "ordinal", "count"] = "continuous"

    @property
    def stored(self) -> int:
        """Bytes of a record."""
        return FLOAT * self.features


class Shapes(Config):
    """What a plan needs to know of a cohort; written out, it stands for one that does not exist yet."""

    records: int = Field(ge=1)
    modalities: dict[str, Annotated[ImageShape | OmicsShape, Field(discriminator="kind")]] = Field(min_length=1)


@dataclass(frozen=True)
class Cohort:
    """What a plan knows of a cohort.

    Attributes:
        records: Held-out ones included.
        modalities: Name to description.
        stored: Bytes of all records, with whatever they hold beside these modalities.
    """

    records: int
    modalities: dict[str, ImageModality | OmicsModality]
    stored: int = 0

    @classmethod
    def read(
        cls, paths: Sequence[Path | str], modalities: list[str] | None, cache: CacheConfig | None = None
    ) -> Cohort:
        """Read prepared cohorts, or YAML files of `Shapes`, as one.

        Args:
            paths: Folders, URLs or files.
            modalities: Which to keep, in their order; None for all.
            cache: For what is fetched from a URL.

        Raises:
            ConfigError, DataError: One is neither, two disagree, or all lack a modality.
        """
        cohorts = {
            str(path): _from_shapes(path) if isinstance(path, Path) and path.is_file() else _from_cohort(path, cache)
            for path in paths
        }
        known = list(dict.fromkeys(name for part in cohorts.values() for name in part.modalities))
        for name in modalities or known:
            if name not in known:
                fix = nearest(name, known)
                raise ConfigError(f"no modality is called '{name}'", where="preprocessing.modalities", fix=fix)
        described = {path: part.modalities for path, part in cohorts.items()}
        return cls(
            sum(part.records for part in cohorts.values()),
            {
                name: _united(name, {path: here[name] for path, here in described.items() if name in here})
                for name in modalities or known
            },
            sum(part.stored for part in cohorts.values()),
        )

    @property
    def in_batch(self) -> int:
        """Bytes of a record in a batch: float32, and for omics which values were observed."""
        voxels = sum(math.prod(image.shape) * len(image.channels) for image in self.images.values())
        features = sum(len(omics.features) for omics in self.omics.values())
        return FLOAT * (voxels + features) + features

    @property
    def images(self) -> dict[str, ImageModality]:
        """The image modalities."""
        return {name: m for name, m in self.modalities.items() if isinstance(m, ImageModality)}

    @property
    def omics(self) -> dict[str, OmicsModality]:
        """The omics modalities."""
        return {name: m for name, m in self.modalities.items() if isinstance(m, OmicsModality)}


def _united(name: str, modalities: Mapping[str, ImageModality | OmicsModality]) -> ImageModality | OmicsModality:
    """A modality with the channels or features of all cohorts."""
    refuse_disagreement(name, modalities)
    first = next(iter(modalities.values()))
    images = [modality for modality in modalities.values() if isinstance(modality, ImageModality)]
    if isinstance(first, ImageModality):
        channels = dict.fromkeys(channel for image in images for channel in image.channels)
        return first.model_copy(update={"channels": list(channels)})
    omics = [modality for modality in modalities.values() if isinstance(modality, OmicsModality)]
    return first.model_copy(update={"features": united_features([each.features for each in omics])})


def _from_shapes(path: Path) -> Cohort:
    shapes = load_config(Shapes, path)
    stored = shapes.records * sum(modality.stored for modality in shapes.modalities.values())
    return Cohort(shapes.records, {name: _described(each) for name, each in shapes.modalities.items()}, stored)


def _described(shape: ImageShape | OmicsShape) -> ImageModality | OmicsModality:
    if isinstance(shape, ImageShape):
        return ImageModality(channels=[f"channel {c}" for c in range(shape.channels)], shape=shape.shape)
    return OmicsModality(features=[f"feature {f}" for f in range(shape.features)], values=shape.values)


def _from_cohort(path: Path | str, cache: CacheConfig | None) -> Cohort:
    cohort = PreparedCohort(path, cache=cache)
    known: dict[str, ImageModality | OmicsModality] = {}
    for name, entry in cohort.manifest.modalities.items():
        if isinstance(entry, ImageEntry):
            known[name] = ImageModality(channels=list(entry.channels), shape=entry.shape)
        else:
            known[name] = OmicsModality(features=cohort.features[name], values=entry.values)
    return Cohort(len(cohort), known, sum(shard.bytes for shard in cohort.manifest.shards.values()))
