"""A view, what a tower may see of a batch; and TowerOutput, what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from foundation.data.batch import Batch
from foundation.modality import ImageModality, OmicsModality
from foundation.model.towers.base import Tokens

Key = TypeVar("Key", bound=Hashable)
"""Of a view among others."""

Pooled = Literal["towers", "modalities"]

FUSED = "fused"
"""In place of a tower's name: all towers, joined by the fusion."""


@dataclass(frozen=True)
class TowerSpec:
    """What a tower of a model reads.

    Attributes:
        name: Of the tower.
        modalities: Name to description: one image modality, or several omics modalities in the order of their tokens.
        patch, grid: Of an image tower: voxels per axis of what one token sees, and tokens per axis.
    """

    name: str
    modalities: dict[str, ImageModality | OmicsModality]
    patch: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()

    @property
    def kind(self) -> Literal["image", "omics"]:
        """What it reads."""
        return next(iter(self.modalities.values())).kind

    @property
    def image(self) -> tuple[str, ImageModality]:
        """Name and description of the one modality of an image tower."""
        [(name, modality)] = self.modalities.items()
        assert isinstance(modality, ImageModality)
        return name, modality

    def several(self) -> tuple[str, ...]:
        """Names of the modalities, where there are several."""
        return tuple(self.modalities) if len(self.modalities) > 1 else ()

    @property
    def omics(self) -> dict[str, OmicsModality]:
        """The omics modalities; none of an image tower."""
        return {name: m for name, m in self.modalities.items() if isinstance(m, OmicsModality)}


@dataclass(frozen=True)
class View:
    """What one tower, or all of them fused, may see of a batch; what is absent stays absent.

    Attributes:
        tower: Name of the tower, or `FUSED`.
        modalities: That may be seen; None for all.
        keep: Modality to bool [B] on the host, the records that may show it; all of them where it is not named.
        hidden: Omics modality to bool [B, F], features to hide; or image modality to bool [B, T], patches.
        weight_B: How much each record counts in a loss that is a sum over records, over all processes 1: set where the
            whole batch is known, for a loss that may be given a part of it. None for objectives that are given all.
        targets: Whether what is hidden of an image is wanted back, as ``patches`` among the extras of tokens.
        pooled: Of a fused view, which embeddings are wanted too that are not projected: of towers, and of modalities
            by themselves.
    """

    tower: str
    modalities: tuple[str, ...] | None = None
    keep: dict[str, Tensor] = field(default_factory=dict)
    hidden: dict[str, Tensor] = field(default_factory=dict)
    weight_B: Tensor | None = None
    targets: bool = False
    pooled: tuple[Pooled, ...] = ()

    def seen_by(self, spec: TowerSpec) -> tuple[str, ...]:
        """The modalities of a tower that it may show."""
        return tuple(name for name in spec.modalities if self.modalities is None or name in self.modalities)

    def shown(self, name: str, observed_BF: Tensor) -> Tensor:
        """Bool [B, F], the observed features of an omics modality that it may show."""
        if self.modalities is not None and name not in self.modalities:
            return torch.zeros_like(observed_BF)
        if name in self.keep:
            observed_BF = observed_BF & self.keep[name].to(observed_BF.device)[:, None]
        return observed_BF & ~self.hidden[name] if name in self.hidden else observed_BF

    def key(self, spec: TowerSpec) -> Hashable:
        """Two views with the same key show a tower the same; masks are the same where they are one object."""
        seen = self.seen_by(spec)
        masks = (tuple((name, id(of[name])) for name in seen if name in of) for of in (self.keep, self.hidden))
        return spec.name, seen, *masks, self.targets, self.pooled


def parts(views: Mapping[Key, View], batch: Batch, count: int) -> Iterator[tuple[Batch, dict[Key, View]]]:
    """A batch and its views in consecutive parts of about equal size; a part may be empty.

    Views that show the same in the whole batch do so in each part.
    """
    for number in range(count):
        start, stop = number * len(batch) // count, (number + 1) * len(batch) // count
        sliced: dict[int, Tensor] = {}

        def of(mask: Tensor, start: int = start, stop: int = stop, sliced: dict[int, Tensor] = sliced) -> Tensor:
            return sliced.setdefault(id(mask), mask[start:stop])

        yield batch.part(start, stop), {name: _map(view, of) for name, view in views.items()}


def _map(view: View, of: Callable[[Tensor], Tensor]) -> View:
    return replace(
        view,
        keep={name: of(mask) for name, mask in view.keep.items()},
        hidden={name: of(mask) for name, mask in view.hidden.items()},
        weight_B=None if view.weight_B is None else of(view.weight_B),
    )


@dataclass
class TowerOutput:
    """What came of a view.

    Attributes:
        z_BD: Normalised embedding in the shared space; zeros where the record has nothing to see.
        present_B: Bool, the record has something to see.
        view: What was asked for.
        tokens: Of the rows with something to see; None of a fused view, and where embeddings alone were kept.
        rows: [P] int64, rows of the batch that `tokens` are of.
        pooled_BE: Of a fused view, where asked for: of each tower its embedding before it is projected and, where it
            reads several modalities, the mean of each one's tokens; zeros of what has nothing to see.
    """

    z_BD: Tensor
    present_B: Tensor
    view: View
    tokens: Tokens | None = None
    rows: Tensor | None = None
    pooled_BE: Tensor | None = None
