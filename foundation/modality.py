"""What a modality is, from the prepared cohort to the tower that reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OmicsFeatures:
    """The features of one omics modality, as the preprocessing has them.

    Attributes:
        names: In the order of the axis F; the same name in two modalities is the same gene.
        values: `continuous`, `binary`, `ordinal` or `count`.
    """

    names: tuple[str, ...]
    values: str
