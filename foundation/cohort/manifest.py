"""cohort.json: what is in a prepared cohort, counted, and how it was prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foundation.errors import DataError
from foundation.files.hashing import sha256_of
from foundation.modality import ImageForm, OmicsForm

FILE = "cohort.json"


class ImageEntry(ImageForm):
    """An image modality; `channels` counts the patients of each."""

    model_config = ConfigDict(extra="ignore", frozen=False)  # counted while records are written

    kind: Literal["image"] = "image"
    patients: int
    channels: dict[str, int]
    stored_as: str
    mirror: list[str]

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        return data


class OmicsEntry(OmicsForm):
    """An omics modality; `features` counts them, features.json names them."""

    model_config = ConfigDict(extra="ignore", frozen=False)  # counted while records are written

    kind: Literal["omics"] = "omics"
    patients: int
    features: int

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        return data


class RegionEntry(BaseModel):
    """A region of an annotation, counted over patients.

    Attributes:
        annotated: In whom somebody looked for it.
        patients: Who has it in the image as stored.
        cut: In whom a part of it lies outside of the image as stored.
        lost: In whom the image as stored shows nothing of it.
        least_kept: Least share of its voxels that an image kept, null where nobody has it.
    """

    annotated: int = 0
    patients: int = 0
    cut: int = 0
    lost: int = 0
    least_kept: float | None = None


class AnnotationEntry(BaseModel):
    """Regions drawn on the images of a modality.

    Attributes:
        image: The modality.
        drawn: `masks` follow the region, `boxes` surround it.
        patients: With an annotation.
        regions: In the order of the axis R.
    """

    image: str
    drawn: Literal["masks", "boxes"] = "masks"
    patients: int = 0
    regions: dict[str, RegionEntry]


class Shard(BaseModel):
    """A file of a cohort: what must be there for the cohort to be whole."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Shard:
        """Measure a file."""
        return cls(bytes=path.stat().st_size, sha256=sha256_of(path))


class Manifest(BaseModel):
    """The whole of cohort.json.

    Attributes:
        patients: Number of patients; a patient with several time points counts once.
        records: Number of patient-and-time-point records.
        patterns: Modalities present, joined by ``+`` (``none`` for a patient without any), to patients.
        endpoints: Per endpoint its kind, patients, and classes with counts or events and follow-up.
        sites, groups: Patients per site and per group; patients without one are left out.
        annotations: What is drawn on images, and for how many patients; left out of the file where there is none.
        folds: Published folds: name to patients per split.
        sources: Per modality, and for the clinical table, its files with SHA-256.
        shards: Files below records/.
        files: Files beside cohort.json that reading needs.
        quarantined: Rows of quarantine.tsv.
        remarks: Modality or endpoint to what was done to it beside reading, such as rows left out, to how often.
        versions: Of chiasma and of the libraries that touched the values.
        fingerprint: SHA-256 of the cohort's YAML as resolved and of its sources.
    """

    name: str
    patients: int
    records: int
    modalities: dict[str, Annotated[ImageEntry | OmicsEntry, Field(discriminator="kind")]]
    patterns: dict[str, int]
    endpoints: dict[str, dict[str, Any]]
    sites: dict[str, int]
    groups: dict[str, int]
    annotations: dict[str, AnnotationEntry] = {}
    folds: dict[str, dict[str, int]]
    sources: dict[str, Any]
    shards: dict[str, Shard] = {}
    files: dict[str, Shard] = {}
    quarantined: int
    remarks: dict[str, dict[str, int]] = {}
    versions: dict[str, str]
    fingerprint: str

    def to_json(self) -> str:
        """The text of cohort.json, the same for the same cohort."""
        unused = None if self.annotations else {"annotations"}
        return json.dumps(self.model_dump(mode="json", exclude=unused), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a prepared cohort.

        Raises:
            DataError: The folder is no complete prepared cohort.
        """
        return cls.parse(cls.text_of(folder), str(folder / FILE))

    @classmethod
    def text_of(cls, folder: Path) -> bytes:
        """The text of the manifest of a prepared cohort.

        Raises:
            DataError: The folder is no complete prepared cohort.
        """
        path = folder / FILE
        if not path.is_file():
            raise DataError(
                "is not a prepared cohort (it has no cohort.json)",
                where=str(folder),
                fix="name the folder given to `chiasma prepare --out`, or run that command again to finish it",
            )
        return path.read_bytes()

    @classmethod
    def parse(cls, text: bytes, where: str) -> Manifest:
        """Read a manifest from its text.

        Raises:
            DataError: It cannot be understood; `where` says whose it is.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            what = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise DataError(f"cannot be understood: {what}", where=where, fix="prepare the cohort again") from None
