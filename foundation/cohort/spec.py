"""cohort.yaml: which files a cohort is made of, and what they mean."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

import foundation.cohort.sources  # noqa: F401  (registers every source format)
from foundation.cohort.annotations.base import annotation_sources
from foundation.cohort.barcodes import PatientRule
from foundation.cohort.clinical import ClinicalTable
from foundation.cohort.endpoints import Endpoint, NumberEndpoint
from foundation.cohort.folds import PublishedFolds
from foundation.cohort.sources.base import SourceConfig, image_sources, table_sources
from foundation.cohort.sources.clinical import ClinicalConfig
from foundation.cohort.transforms import parse
from foundation.cohort.words import refuse_two_meanings
from foundation.config import Config, YamlPath
from foundation.errors import ConfigError, nearest
from foundation.modality import Intensity, Percentile, Spacing

AnyImageSource = image_sources.configs()
AnyTableSource = table_sources.configs()
AnyAnnotationSource = annotation_sources.configs()


class ImageRecipe(Config):
    """How an image modality is made: scans of one kind, one or several channels on one grid."""

    kind: Literal["image"]
    channels: list[str] = Field(min_length=1)
    source: list[AnyImageSource] = Field(min_length=1)  # type: ignore[valid-type]
    orientation: Literal["RAS", "native"] = "RAS"
    spacing: Spacing = Field(
        "native", description="Millimetres per axis to resample to; `native` keeps the header's; `untrue` distrusts it."
    )
    crop_foreground: bool = False
    foreground_above: float = Field(0.0, description="A voxel above this, in physical units, is foreground.")
    size: tuple[int, ...] = Field(description="Voxels per axis after pad or crop: two numbers for 2D images, or three.")
    stretch: list[Literal["x", "y", "z"]] = Field(
        [], description="Axes brought to `size` by resampling, not by pad or crop: for stacks whose spacing is untrue."
    )
    background: float | None = Field(
        None, description="The value of padding; by default the lowest value of the image."
    )
    intensity: Intensity = Percentile(rule="percentile", low=0.5, high=99.5)
    stored_as: Literal["float32", "float16", "int16", "uint8"] = "float32"
    mirror: list[Literal["x", "y", "z"]] = Field(
        [], description="Axes along which anatomy may be mirrored in augmentation, such as x for a brain."
    )

    _one_or_many = field_validator("source", mode="before")(lambda value: value if isinstance(value, list) else [value])

    @model_validator(mode="after")
    def _dimensions_agree(self) -> ImageRecipe:
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ValueError(f"size needs two or three positive numbers, not {list(self.size)}")
        if isinstance(self.spacing, tuple) and (len(self.spacing) != len(self.size) or min(self.spacing) <= 0):
            raise ValueError(f"spacing needs {len(self.size)} positive numbers, like size, not {list(self.spacing)}")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("a channel is listed twice")
        if len(self.size) == 2 and "z" in (*self.stretch, *self.mirror):
            raise ValueError("a 2D image has no axis z to stretch or mirror")
        return self


class OmicsRecipe(Config):
    """How an omics modality is made: any vector of named features, such as RNA or clinical covariates."""

    kind: Literal["omics"]
    source: list[AnyTableSource] = Field(min_length=1)  # type: ignore[valid-type]
    values: Literal["continuous", "binary", "ordinal", "count"] = "continuous"
    unit: str = Field("", description="What the values are, such as `z-score` or `log2 RPM`, after the transform.")
    transform: list[str] = Field([], description="Names from foundation/cohort/transforms.py, in order, per value.")
    absent_for: list[str] = Field([], description="Groups that have no such table.")

    @field_validator("transform")
    @classmethod
    def _known(cls, transform: list[str]) -> list[str]:
        for text in transform:
            try:
                parse(text)
            except ConfigError as error:
                raise ValueError(f"{error.what}; {error.fix}") from None
        return transform

    _one_or_many = field_validator("source", mode="before")(lambda value: value if isinstance(value, list) else [value])


class AnnotationRecipe(Config):
    """Regions drawn on the images of one modality, for those who have them; never an input of a model."""

    image: str = Field(description="The image modality that it was drawn on.")
    channel: str | None = Field(
        None, description="The channel on whose grid it was drawn; by default any whose grid it has."
    )
    source: list[AnyAnnotationSource] = Field(min_length=1)  # type: ignore[valid-type]
    regions: dict[str, list[int | str]] = Field(
        min_length=1,
        description="Name of each region to what it is called in the source: values of voxels, or words. A list of "
        "names is enough where the source has the same words.",
    )
    leave_out: list[int] = Field([], description="Values of voxels, beside 0, that are no region.")

    _one_or_many = field_validator("source", mode="before")(lambda value: value if isinstance(value, list) else [value])

    @field_validator("regions", mode="before")
    @classmethod
    def _one_or_many_words(cls, regions: Any) -> Any:
        if isinstance(regions, list):
            regions = {name: name for name in regions}
        if not isinstance(regions, dict):
            return regions
        return {name: called if isinstance(called, list) else [called] for name, called in regions.items()}

    @model_validator(mode="after")
    def _regions_can_be_told(self) -> AnnotationRecipe:
        for name, called in self.regions.items():
            if not name.replace("_", "").isalnum():
                raise ValueError(f"region '{name}': use letters, digits and _ in a name")
            if not called:
                raise ValueError(f"region '{name}' has neither a value nor a word")
            if 0 in called:
                raise ValueError(f"region '{name}': voxels of value 0 are those of no region")
            if both := set(called) & set(self.leave_out):
                raise ValueError(f"region '{name}': {both.pop()} is under leave_out too")
        return self

    @property
    def boxes(self) -> bool:
        """Whether all regions are boxes."""
        return all(annotation_sources[source.format].drawn == "boxes" for source in self.source)


class Quarantine(Config):
    """How much may be wrong before preparation stops."""

    stop_above: float = Field(default=0.1, ge=0, le=1, description="Fraction of scans, or of samples of a table.")


class CohortSpec(Config):
    """A cohort: its sources, its modalities and its endpoints."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    root: YamlPath = Path(".")
    groups: list[str] = Field([], description="Values of {group} in `files`: one cohort from several folders.")
    patients: PatientRule = PatientRule()
    clinical: ClinicalTable | None = None
    modalities: dict[str, Annotated[ImageRecipe | OmicsRecipe, Field(discriminator="kind")]] = Field(min_length=1)
    endpoints: dict[str, Endpoint] = {}
    annotations: dict[str, AnnotationRecipe] = {}
    folds: PublishedFolds | None = None
    quarantine: Quarantine = Quarantine()

    @model_validator(mode="after")
    def _parts_agree(self) -> CohortSpec:
        if self.endpoints and self.clinical is None:
            raise ValueError("endpoints need a clinical table: add the key `clinical`")
        for name, modality in self.modalities.items():
            if not name.replace("_", "").isalnum():
                raise ValueError(f"modality '{name}': use letters, digits and _ in a name")
            for group in getattr(modality, "absent_for", []):
                if group not in self.groups:
                    raise ValueError(f"modality '{name}': absent_for names '{group}', which is no group")
        self._refuse_annotations_of_nothing()
        self._refuse_missing_words_that_mean_something()
        return self

    def _refuse_annotations_of_nothing(self) -> None:
        images = self.images()
        for name, annotation in self.annotations.items():
            if not name.replace("_", "").isalnum():
                raise ValueError(f"annotation '{name}': use letters, digits and _ in a name")
            if annotation.image not in images:
                hint = nearest(annotation.image, images)
                raise ValueError(f"annotation '{name}': no image modality is called '{annotation.image}'; {hint}")
            channels = images[annotation.image].channels
            if annotation.channel is not None and annotation.channel not in channels:
                hint = nearest(annotation.channel, channels)
                raise ValueError(f"annotation '{name}': '{annotation.channel}' is no channel of its image; {hint}")

    def _refuse_missing_words_that_mean_something(self) -> None:
        if self.clinical is None or not self.clinical.missing:
            return
        missing = {"`clinical.missing`": self.clinical.missing}
        for name, endpoint in self.endpoints.items():
            if not isinstance(endpoint, NumberEndpoint):
                refuse_two_meanings({**missing, f"the endpoint '{name}'": endpoint.words()})
        for modality in self.omics().values():
            for source in modality.source:
                self.completed(source)

    def completed(self, source: SourceConfig) -> SourceConfig:
        """The config of a table, with what `clinical` says of its words and rows where it is the clinical table.

        Raises:
            ValueError: A word for nothing known means something to a column.
        """
        if self.clinical is None or not isinstance(source, ClinicalConfig):
            return source
        if PurePosixPath(source.files) != PurePosixPath(self.clinical.files):
            return source
        for name, covariate in source.columns.items():
            refuse_two_meanings(
                {"`clinical.missing`": self.clinical.missing, f"the column '{name}'": covariate.words()}
            )
        repeated = source.repeated if self.clinical.repeated == "error" else self.clinical.repeated
        missing = [*source.missing, *self.clinical.missing]
        return source.model_copy(update={"missing": missing, "repeated": repeated})

    def images(self) -> dict[str, ImageRecipe]:
        """The image modalities by name."""
        return {n: m for n, m in self.modalities.items() if isinstance(m, ImageRecipe)}

    def omics(self) -> dict[str, OmicsRecipe]:
        """The omics modalities by name."""
        return {n: m for n, m in self.modalities.items() if isinstance(m, OmicsRecipe)}


def plain(config: Config) -> dict[str, Any]:
    """A config as JSON-ready values."""
    return config.model_dump(mode="json")
