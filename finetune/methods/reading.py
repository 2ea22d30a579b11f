"""What heads read of a record, in blocks: the fused embedding, those of towers and modalities, values and images.

An embedding made by a contrast keeps what modalities share, and loses what one alone knows; and that a patient is old
is one number among thousands to it. So heads read beside it what a linear model would read. Whatever of a record may
not be seen is zero here too, and every block that can be absent says whether it is. The model need not know a
covariate: no tower reads it then, heads do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from finetune.methods.image_features import cell_means
from foundation.config import Config
from foundation.data.alignment import Aligned
from foundation.data.batch import Batch
from foundation.data.preprocessing import Preprocessing
from foundation.data.sample import sample
from foundation.model.layers.values import masked
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import FUSED, Pooled, TowerOutput, View

Kind = Literal["towers", "modalities", "values", "images"]

ALL: tuple[Kind, ...] = ("towers", "modalities", "values", "images")

FEW = 32
"""Features of a modality up to which each is read by itself, with whether it was observed."""

MOST_COMPONENTS = 200
"""Of a modality with more features; its smaller components are noise to so few patients as have outcomes."""

MOST_RECORDS = 4000
"""Training records that decide the components; of more, a sample."""

GRID = 4
"""Cells of an image along each axis."""


class Block(NamedTuple):
    """Columns of what heads read that share a penalty.

    Attributes:
        name: Of the block.
        width: Columns.
        single: Whether each column has a scale of its own; else all share one, so that the small ones stay small.
    """

    name: str
    width: int
    single: bool = False


class ReadingConfig(Config):
    """What is read, as it is kept with an adapter.

    Attributes:
        towers: Whether each tower's own embedding is read.
        modalities: Whether the embedding of each omics modality is read that shares a tower with others.
        covariates: Omics modalities whose features are read one by one.
        components: Omics modality to how many of its components are read.
        images: Image modalities whose intensities are read.
    """

    towers: bool = False
    modalities: bool = False
    covariates: tuple[str, ...] = ()
    components: dict[str, Annotated[int, Field(ge=1)]] = {}
    images: tuple[str, ...] = ()


class Reading(nn.Module):
    """Reads blocks of a batch.

    Args:
        config: What to read.
        model: Whose embeddings and modalities these are.
        heads_only: Scaling of the covariates that the model does not know; None where it knows all of them.
    """

    def __init__(self, config: ReadingConfig, model: MultimodalModel, heads_only: Preprocessing | None = None) -> None:
        super().__init__()
        self.config = config
        self.heads_only = heads_only
        self.width = model.config.width
        kinds: list[tuple[Pooled, bool]] = [("towers", config.towers), ("modalities", config.modalities)]
        self.kinds: tuple[Pooled, ...] = tuple(kind for kind, asked in kinds if asked)
        self.pooled = model.pooled(self.kinds)
        images = dict(spec.image for spec in model.specs if spec.kind == "image")
        self.images = {name: images[name] for name in config.images}
        self.features = _features(model, heads_only)
        # By number, as a modality may have any name.
        for m, (name, count) in enumerate(config.components.items()):
            self.register_buffer(f"center_{m}", torch.zeros(self.features[name]))
            self.register_buffer(f"basis_{m}", torch.zeros(self.features[name], count))

    @classmethod
    def of(
        cls,
        model: MultimodalModel,
        aligned: Aligned,
        rows: np.ndarray,
        kinds: Sequence[Kind],
        covariates: Sequence[str],
        heads_only: Preprocessing | None = None,
    ) -> Reading:
        """Learn from training records what is to be read.

        Args:
            model: Before it is adapted.
            aligned: The cohort as the model and its heads read it, with what may be seen.
            rows: Training records.
            kinds: Of blocks beside the fused embedding.
            covariates: Omics modalities whose features are read one by one, however many they are.
            heads_only: Scaling of those that the model does not know, if any.
        """
        seen = aligned.positions
        omics = {name: count for name, count in _features(model, heads_only).items() if name in seen}
        by_itself = {name for name, count in omics.items() if count <= FEW and "values" in kinds}
        single = [name for name in omics if name in covariates or name in by_itself]
        learned: dict[str, tuple[Tensor, Tensor]] = {}
        if "values" in kinds:
            chosen = sample(aligned.cohort, rows, MOST_RECORDS)
            learned = {name: _components(aligned, name, chosen) for name in omics if name not in single}
        learned = {name: parts for name, parts in learned.items() if parts[1].shape[1]}
        images = [spec.image[0] for spec in model.specs if spec.kind == "image" and spec.image[0] in seen]
        config = ReadingConfig(
            towers="towers" in kinds,
            modalities="modalities" in kinds and any(spec.several() for spec in model.specs),
            covariates=tuple(single),
            components={name: basis_FK.shape[1] for name, (_, basis_FK) in learned.items()},
            images=tuple(images) if "images" in kinds else (),
        )
        reading = cls(config, model, heads_only)
        for m, (center_F, basis_FK) in enumerate(learned.values()):
            getattr(reading, f"center_{m}").copy_(center_F)
            getattr(reading, f"basis_{m}").copy_(basis_FK)
        return reading.to(next(model.parameters()).device)

    def blocks(self) -> list[Block]:
        """In the order of their columns."""
        found = [Block(FUSED, self.width)]
        found += [Block(name, width) for name, width in self.pooled.items()]
        found += [Block(f"{name} values", count + 1) for name, count in self.config.components.items()]
        found += [
            Block(f"{name} intensities", len(image.channels) * (GRID ** len(image.shape) + 3), single=True)
            for name, image in self.images.items()
        ]
        return found + [
            Block(f"{name} values", 2 * self.features[name], single=True) for name in self.config.covariates
        ]

    def view(self, view: View) -> View:
        """A fused view with what is read of towers and modalities."""
        return View(FUSED, view.modalities, view.keep, view.hidden, pooled=self.kinds)

    def forward(self, batch: Batch, view: View, output: TowerOutput) -> Tensor:
        """[B, E] what heads read of a fused view.

        Args:
            batch: Records.
            view: What of them may be seen.
            output: What the model makes of it.
        """
        return torch.cat([part.float() for part in self._parts(batch, view, output)], dim=1)

    def _parts(self, batch: Batch, view: View, output: TowerOutput) -> Iterator[Tensor]:
        yield output.z_BD
        if output.pooled_BE is not None and self.pooled:
            yield output.pooled_BE
        for m, name in enumerate(self.config.components):
            seen_BF = view.shown(name, batch.observed[name])
            center_F, basis_FK = getattr(self, f"center_{m}"), getattr(self, f"basis_{m}")
            yield masked(batch.omics[name] - center_F, seen_BF) @ basis_FK
            yield ~seen_BF.any(dim=1, keepdim=True)
        for name in self.images:
            yield _intensities(batch.images[name], self._shown(batch, view, name))
        for name in self.config.covariates:
            seen_BF = view.shown(name, batch.observed[name])
            yield masked(batch.omics[name], seen_BF)
            yield seen_BF

    @staticmethod
    def _shown(batch: Batch, view: View, name: str) -> Tensor:
        """Bool [B, C], channels that may be seen."""
        here_BC = batch.channels[name]
        return here_BC if view.modalities is None or name in view.modalities else torch.zeros_like(here_BC)


def _features(model: MultimodalModel, heads_only: Preprocessing | None) -> dict[str, int]:
    """Omics modality to its number of features: those of the model, then those that heads alone read."""
    counts = {name: len(m.features) for spec in model.specs for name, m in spec.omics.items()}
    return counts | {name: len(s.features) for name, s in (heads_only.omics() if heads_only else {}).items()}


def _components(aligned: Aligned, name: str, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Means [F] where observed, and directions [F, K] of the largest spread, of training records."""
    from sklearn.utils.extmath import randomized_svd

    values_NF, observed_NF, _ = aligned.read_omics(name, rows)
    here_N = observed_NF.any(axis=1)
    values_NF, observed_NF = values_NF[here_N].astype(np.float32), observed_NF[here_N]
    center_F = values_NF.sum(axis=0) / np.maximum(observed_NF.sum(axis=0), 1)
    centred_NF = np.where(observed_NF, values_NF - center_F, 0)
    count = min(MOST_COMPONENTS, centred_NF.shape[1], len(centred_NF) - 1)
    if count < 1:
        return torch.from_numpy(center_F), torch.zeros(len(center_F), 0)
    _, _, basis_KF = randomized_svd(centred_NF, count, n_iter=2, random_state=0)  # pyright: ignore[reportArgumentType]  (its stub says str)
    return torch.from_numpy(center_F), torch.from_numpy(np.ascontiguousarray(basis_KF.T))


def _intensities(x_BCXYZ: Tensor, shown_BC: Tensor) -> Tensor:
    """[B, C (cells + 3)] means of the cells of a coarse grid, the mean and spread of the whole; and what is absent."""
    # Most records of many a cohort have no image: no time is spent on them.
    [rows_P] = shown_BC.any(dim=1).nonzero(as_tuple=True)
    x_PCXYZ = x_BCXYZ if len(rows_P) == len(x_BCXYZ) else x_BCXYZ[rows_P]
    x_PCV = x_PCXYZ.flatten(2)
    mean_PC = x_PCV.mean(dim=2)
    # From the length: a standard deviation in one pass takes forty times as long, and scaled values are near 0.
    square_PC = torch.linalg.vector_norm(x_PCV, dim=2).square() / x_PCV.shape[2]
    spread_PC = (square_PC - mean_PC.square()).clamp(min=0).sqrt()
    cells_PCG = cell_means(x_PCXYZ, [GRID] * (x_PCXYZ.ndim - 2))
    told_PCF = torch.cat([cells_PCG, mean_PC[..., None], spread_PC[..., None]], dim=2)
    told_BCF = told_PCF.new_zeros(*shown_BC.shape, told_PCF.shape[2])
    told_BCF[rows_P] = masked(told_PCF, shown_BC[rows_P, :, None])
    return torch.cat([told_BCF, ~shown_BC[..., None]], dim=2).flatten(1)
