"""What a modality is: one description, from the prepared cohort over the preprocessing to the tower that reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foundation.config import Config

Spacing = tuple[float, ...] | Literal["native", "untrue"]


class Window(Config):
    """Intensities between two physical values matter, such as HU -1000 to 400."""

    rule: Literal["window"]
    unit: Literal["HU", "arbitrary"] = "HU"
    low: float
    high: float


class Percentile(Config):
    """Intensities between two percentiles of the image itself matter; for MRI, whose unit is arbitrary."""

    rule: Literal["percentile"]
    unit: Literal["arbitrary"] = "arbitrary"
    low: float = Field(default=0.5, ge=0, lt=100)
    high: float = Field(default=99.5, gt=0, le=100)


Intensity = Annotated[Window | Percentile, Field(discriminator="rule")]


class ImageForm(Config):
    """How the images of a modality were prepared: what a model and a cohort must agree on.

    Attributes:
        shape: Voxels per axis: two numbers for 2D images, three for volumes.
        orientation, spacing, intensity, crop_foreground, foreground_above, stretch, background: As in cohort.yaml.
    """

    shape: list[int]
    orientation: str = "RAS"
    spacing: Spacing = "native"
    intensity: Intensity = Percentile(rule="percentile")
    crop_foreground: bool = False
    foreground_above: float = 0.0
    stretch: list[str] = []
    background: float | None = None


class OmicsForm(Config):
    """How the values of an omics modality were prepared: what a model and a cohort must agree on.

    Attributes:
        values: `continuous`, `binary`, `ordinal` or `count`.
        unit, transform: As in cohort.yaml.
    """

    values: str
    unit: str = ""
    transform: list[str] = []


class ImageModality(ImageForm):
    """Images of one kind: one or several channels on one grid.

    Attributes:
        channels: Names of the axis C.
    """

    kind: Literal["image"] = "image"
    channels: list[str] = Field(min_length=1)

    def described(self) -> ImageModality:
        """The description alone, of whatever holds more."""
        return ImageModality(**{key: getattr(self, key) for key in ImageModality.model_fields})


class OmicsModality(OmicsForm):
    """A vector of named features.

    Attributes:
        features: Names of the axis F; the same name in two modalities is the same gene.
    """

    kind: Literal["omics"] = "omics"
    features: list[str] = Field(min_length=1)

    def described(self) -> OmicsModality:
        """The description alone, of whatever holds more."""
        return OmicsModality(**{key: getattr(self, key) for key in OmicsModality.model_fields})


Modality = Annotated[ImageModality | OmicsModality, Field(discriminator="kind")]
