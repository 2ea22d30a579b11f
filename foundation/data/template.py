"""The cohort.yaml that a model wants: everything that a cohort must agree on with it, and blanks for the files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from foundation.cohort.united_forms import KEY_IN_YAML
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.modality import ImageForm, OmicsForm
from foundation.wording import listed
from foundation.yaml_text import dump

BLANK = "FILL_IN"
"""What stands where only the user knows."""

WIDTH = 116

FEW = 12
"""Features up to which the usual value of each is told."""

SHOWN = 5
"""Features that are named, of many."""


def template(preprocessing: Preprocessing) -> str:
    """The text of a cohort.yaml for new patients of a model.

    `chiasma prepare` takes it once each `BLANK` is filled in; a modality that the new patients lack is deleted.

    Args:
        preprocessing: Of the model, and of what its heads alone read.
    """
    lines = [
        *_comments(
            f"What the model wants of new patients; it was fitted on the cohort '{preprocessing.cohort}'. Write your "
            f"own places for {BLANK}, delete the modalities that you do not have, and leave all other values as they "
            "are: a model refuses a cohort that was prepared otherwise."
        ),
        "name: new-patients",
        "modalities:",
    ]
    for name, scaling in preprocessing.modalities.items():
        about = _of_image(scaling) if isinstance(scaling, ImageScaling) else _of_omics(scaling)
        lines += [f"  {line}" for line in [*_comments(about), f"{name}:"]]
        form = _image(scaling) if isinstance(scaling, ImageScaling) else _omics(scaling)
        lines += [f"    {key}: {dump([value], flow=True).strip()[1:-1]}" for key, value in form]
    return "\n".join(lines) + "\n"


def _of_image(scaling: ImageScaling) -> str:
    channels = listed([f"'{channel}'" for channel in scaling.channels])
    return f"Any of the channels {channels} will do. DICOM, PNG and others: see `format` in docs/cohorts.md."


def _of_omics(scaling: OmicsScaling) -> str:
    named = ", ".join(scaling.features[:SHOWN])
    rest = f" and {len(scaling.features) - SHOWN:,} more" if len(scaling.features) > SHOWN else ""
    typical = sorted(scaling.center)[len(scaling.center) // 2]
    range_of = f" After `transform` a usual value is about {typical:.3g}."
    if len(scaling.features) <= FEW:
        each = zip(scaling.features, scaling.center, scaling.scale, strict=True)
        usual = listed([f"{feature} {center:.3g} (give or take {scale:.2g})" for feature, center, scale in each])
        range_of = f" Usual values, whose units and coding are to be kept: {usual}."
    if scaling.values == "binary":
        range_of = (
            " Of a MAF, list the genes that were sequenced in `genes`: then one that nobody has hit is 0, not absent."
        )
    return (
        f"Features: {named}{rest}; at least {scaling.minimum_overlap:.0%} of them have to be there, matched by name."
        f"{range_of}"
    )


def _image(scaling: ImageScaling) -> Iterator[tuple[str, Any]]:
    yield "kind", "image"
    yield "channels", list(scaling.channels)
    yield "source", {"format": "nifti", "files": f"{BLANK}/{{patient}}/{{channel}}.nii.gz"}
    yield from _agreed(scaling, ImageForm)


def _omics(scaling: OmicsScaling) -> Iterator[tuple[str, Any]]:
    yield "kind", "omics"
    if scaling.values == "binary":
        yield "source", {"format": "maf", "files": f"{BLANK}.maf", "genes": f"{BLANK}.txt", "min_patients": 0}
    else:
        yield "source", {"format": "matrix", "files": f"{BLANK}.tsv", "orientation": "features_by_samples"}
    yield from _agreed(scaling, OmicsForm)


def _agreed(scaling: ImageScaling | OmicsScaling, form: type[ImageForm | OmicsForm]) -> Iterator[tuple[str, Any]]:
    """The keys of a form as cohort.yaml has them."""
    told = scaling.model_dump(mode="json", include=set(form.model_fields))
    for key, value in told.items():
        if value is not None:
            yield KEY_IN_YAML.get(key, key), value


def _comments(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
