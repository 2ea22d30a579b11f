"""What may be seen of a batch, by which tower, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from foundation.modality import OmicsFeatures
from foundation.model.towers.base import Tokens

FUSED = "fused"
"""In place of a tower's name: all towers, joined by the fusion."""


@dataclass(frozen=True)
class TowerSpec:
    """Where a tower stands in a model.

    Attributes:
        name: Of the tower.
        kind: What it looks at.
        modalities: The one image modality, or every omics modality, in the order of its tokens.
        features: Of each omics modality.
        channels: Of the image.
        patch, grid: Of an image tower: voxels per axis of what one token sees, and tokens per axis.
    """

    name: str
    kind: Literal["image", "omics"]
    modalities: tuple[str, ...]
    features: tuple[OmicsFeatures, ...] = ()
    channels: int = 0
    patch: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()


@dataclass
class View:
    """One tower's look at a batch.

    Attributes:
        tower: Name of the tower.
        keep_BM: Bool, the modalities it may see; what is absent stays absent.
        hidden: Omics modality to bool [B, F], features to hide; or image modality to bool [B, T], patches.
        weight_B: How much each record counts in a loss that is a sum over records, over all processes 1: set where the
            whole batch is known, for a loss that may be shown a part of it. None for objectives that are shown all.
    """

    tower: str
    keep_BM: Tensor
    hidden: dict[str, Tensor] = field(default_factory=dict)
    weight_B: Tensor | None = None

    def part(self, start: int, stop: int) -> View:
        """The same look at records `start` to `stop` of the batch."""
        hidden = {name: mask[start:stop] for name, mask in self.hidden.items()}
        weight_B = None if self.weight_B is None else self.weight_B[start:stop]
        return View(self.tower, self.keep_BM[start:stop], hidden, weight_B)


@dataclass
class TowerOutput:
    """What came of a view.

    Attributes:
        z_BD: Normalised embedding in the shared space; zeros where the record has nothing to see.
        present_B: Bool, the record has something to see.
        view: What was asked for.
        tokens: Of the rows with something to see; None unless the objective's `needs_tokens`.
        rows: [P] int64, rows of the batch that `tokens` are of; where nobody has anything, a stand-in that is not
            present.
        patches: [P, T, C * voxels] what each token of an image would have seen, whatever in absent channels; None
            unless there are tokens and the view hides some.
    """

    z_BD: Tensor
    present_B: Tensor
    view: View
    tokens: Tokens | None = None
    rows: Tensor | None = None
    patches: Tensor | None = None
