"""The file preprocessing.json: its classes, and how it is written, read and checked; scaling.py fits what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from foundation.config import Config
from foundation.errors import CheckpointError
from foundation.modality import ImageModality, OmicsModality

FILE = "preprocessing.json"


class ImageScaling(ImageModality):
    """An image modality as the model knows it.

    Intensities are brought to 0 to 1 between the bounds of the intensity rule (the image's own, for
    percentiles), clipped there, and standardised with `mean` and `std`.

    Attributes:
        mean, std: [C] of the foreground of the training images, in units of 0 to 1; every image counts the same.
        patients: [C] training patients who have the channel.
    """

    mean: list[float]
    std: list[float]
    patients: list[int]


class OmicsScaling(OmicsModality):
    """An omics modality as the model knows it: its vocabulary, and robust scaling.

    Attributes:
        center: [F] median over the training records in which the feature was observed; 0 for binary values.
        scale: [F] interquartile range / 1.349; where that is 0 the standard deviation, where that is 0 too 1;
            1 for binary values.
        clip: Bound on a scaled value.
        minimum_overlap: Fraction of `features` that a cohort must have.
        patients: Training patients in whom any of `features` was observed.
    """

    center: list[float]
    scale: list[float]
    clip: float
    minimum_overlap: float
    patients: int


class Preprocessing(Config):
    """The whole of preprocessing.json; a function of the training records alone.

    Attributes:
        format_version: Of the file.
        cohort: Name of the cohort it was fitted on.
        patients, records: How many it was fitted on.
        modalities: In the order of the axis M.
    """

    format_version: Literal[1] = 1
    cohort: str
    patients: int
    records: int
    modalities: dict[str, Annotated[ImageScaling | OmicsScaling, Field(discriminator="kind")]]

    def images(self) -> dict[str, ImageScaling]:
        """The image modalities by name."""
        return {n: s for n, s in self.modalities.items() if isinstance(s, ImageScaling)}

    def omics(self) -> dict[str, OmicsScaling]:
        """The omics modalities by name."""
        return {n: s for n, s in self.modalities.items() if isinstance(s, OmicsScaling)}

    def described(self) -> dict[str, ImageModality | OmicsModality]:
        """What each modality is, without what was learned of it."""
        return {name: scaling.described() for name, scaling in self.modalities.items()}

    def joined(self, other: Preprocessing | None) -> Preprocessing:
        """The same with the modalities of another, if there is one, at the end of the axis M.

        Raises:
            ValueError: Both have a modality.
        """
        further = other.modalities if other else {}
        if both := self.modalities.keys() & further.keys():
            raise ValueError(f"two preprocessings have {sorted(both)}")
        return self.model_copy(update={"modalities": {**self.modalities, **further}})

    def to_json(self) -> str:
        """The text of preprocessing.json; every number reads back to the same bits."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = FILE) -> Preprocessing:
        """The inverse of `to_json`.

        Raises:
            CheckpointError: The text is damaged, of another version, or has keys that are not known.
        """
        try:
            document = json.loads(text)
            version = document.get("format_version") if isinstance(document, dict) else None
            if version != 1:
                raise CheckpointError(
                    f"has format version {version}, not 1", where=where, fix="use the version of chiasma that wrote it"
                )
            preprocessing = cls.model_validate(document)
            preprocessing._check_lengths(where)
            return preprocessing
        except (json.JSONDecodeError, ValidationError) as error:
            what = f"cannot be understood: {' '.join(str(error).split())[:300]}"
            raise CheckpointError(what, where=where, fix="take the model folder from its source again") from None

    def _check_lengths(self, where: str) -> None:
        for name, scaling in self.modalities.items():
            if isinstance(scaling, ImageScaling):
                lengths = {len(scaling.channels), len(scaling.mean), len(scaling.std), len(scaling.patients)}
            else:
                lengths = {len(scaling.features), len(scaling.center), len(scaling.scale)}
            if len(lengths) != 1:
                what = f"the lists of '{name}' differ in length"
                raise CheckpointError(what, where=where, fix="take the model folder from its source again")

    def write(self, folder: Path) -> None:
        """Write preprocessing.json into a folder."""
        (folder / FILE).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Preprocessing:
        """Read preprocessing.json from a folder.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        path = folder / FILE
        if not path.is_file():
            fix = "name the folder of a finished run, or of a model"
            raise CheckpointError(f"is no model folder: it has no {FILE}", where=str(folder), fix=fix)
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), where=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot be read: {error}", where=str(path), fix="name a model folder") from None
