"""NIfTI files and pictures as modalities: their patterns by their names, their forms by some of their headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundation.cohort.describe.findings import Findings, FoundModality
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.patterns import Series, find_series
from foundation.cohort.people import evenly
from foundation.cohort.sources.base import image_sources
from foundation.errors import ChiasmaError
from foundation.progress import Progress
from foundation.wording import counted, listed

MASK = re.compile(
    r"(^|[_\-. ])(masks?|segs?|segmentations?|labels?|roi|gtv\w*|lesion|tumou?r|brainmasks?)($|[_\-. ])|seg$|mask$",
    re.IGNORECASE,
)
"""Names of channels that are drawn, not acquired."""

DRAWN = re.compile(r"(.*[_\-. ])?(masks?|segs?|segmentations?|labels?|labelst[rs]|truth)([_\-. ].*)?", re.IGNORECASE)
"""Names of folders whose files are drawn or simulated, not acquired."""

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")

LOOKED_AT = 12
"""Headers of one series that are read."""

LONGEST = 128
"""Voxels along an axis beyond which a draft asks for coarser ones."""

STEP = 8
"""Sizes are multiples of this, so that patches fit."""


class Form(NamedTuple):
    """What some headers of one series say: voxels and millimetres per axis, each [headers, axes]."""

    shapes: np.ndarray
    spacings: np.ndarray


def place_images(listing: Listing, findings: Findings, progress: Progress) -> None:
    """Place every NIfTI file and every picture that is left."""
    patients = set(findings.patients.patients) if findings.patients else set()
    _put_drawn_aside(listing, findings)
    for ending in (".nii.gz", ".nii"):
        names = [name for name in listing.left(ending) if name.lower().endswith(ending)]
        for series in find_series(names, ending, patients) if names else []:
            _place_nifti(listing, findings, series, progress)
    for ending in PICTURES:
        names = listing.left(ending)
        for series in find_series(names, ending, patients) if names else []:
            _place_pictures(listing, findings, series)


def _put_drawn_aside(listing: Listing, findings: Findings) -> None:
    """Put aside files below a folder whose name says masks or truth, whatever the files are called."""
    drawn: dict[str, list[str]] = {}
    for name in listing.left(".nii.gz", ".nii", *PICTURES):
        folder = next((part for part in name.split("/")[:-1] if DRAWN.fullmatch(part)), "")
        if folder:
            drawn.setdefault(folder, []).append(name)
    for folder, names in drawn.items():
        what = "truth, which a model may not see" if "truth" in folder.lower() else "masks; no input of a model"
        findings.put_aside_many(names, f"in a folder '{folder}', whose name says {what}")
        listing.take(names)


def _place_nifti(listing: Listing, findings: Findings, series: Series, progress: Progress) -> None:
    files = [name for names in series.channels.values() for name in names]
    listing.take(files)
    if series.aside:
        findings.put_aside_many(files, series.aside)
        return
    masks = {name for name in series.channels if MASK.search(name)}
    if masks == set(series.channels):
        findings.put_aside(series.pattern, f"{counted(len(files), 'file')} named as masks are; no input of a model")
        return
    rare = _rare(series, masks)
    channels = sorted(set(series.channels) - masks - rare, key=lambda name: (-len(series.channels[name]), name))
    for name in sorted(masks | rare):
        why = (
            "named as a mask is; no input of a model"
            if name in masks
            else "of few patients: add it to `channels` if it counts"
        )
        findings.put_aside(
            series.pattern.replace("{channel}", name), f"{counted(len(series.channels[name]), 'file')} {why}"
        )
    chosen = [name for channel in channels for name in series.channels[channel]]
    form, broken = _nifti_form([listing.path(chosen[place]) for place in evenly(len(chosen), LOOKED_AT)])
    if broken:
        what = f"of {counted(min(LOOKED_AT, len(chosen)), 'header')} read {len(broken)}"
        findings.put_aside(series.pattern, f"{what} damaged, whose scans go to quarantine: {broken[0]}")
    if form is None:
        read = counted(min(LOOKED_AT, len(chosen)), "header")
        findings.put_aside(series.pattern, f"of {read} read none is one of an image")
        return
    source = {"format": "nifti", "files": series.pattern}
    recipe, notes = image_recipe(channels if channels != [""] else ["scan"], source, form)
    notes += [series.note] * bool(series.note)
    _add(listing, findings, _name_of(series.pattern, channels), recipe, notes, series, form, channels)


def _rare(series: Series, masks: set[str]) -> set[str]:
    """Channels that nearly nobody has, beside some that many have."""
    numbers = {name: len(files) for name, files in series.channels.items() if name not in masks}
    most = max(numbers.values())
    return {name for name, number in numbers.items() if number < 0.05 * most and most > 10}


def _name_of(pattern: str, channels: Sequence[str]) -> str:
    """What kind of scan the names speak of."""
    said = re.sub(r"\{\w+\}", "", f"{pattern} {' '.join(channels)}".lower())
    kinds = {"ct": "ct|cect|ncct", "pet": "pet|suv", "mri": r"mri?|t1\w*|t2\w*|flair|adc|dwi|mprage|swi"}
    return next((kind for kind, words in kinds.items() if re.search(rf"(^|[^a-z])({words})([^a-z]|$)", said)), "scan")


def _nifti_form(paths: Sequence[Path]) -> tuple[Form | None, list[str]]:
    import nibabel

    shapes, spacings, broken = [], [], []
    for path in paths:
        try:
            header: Any = nibabel.load(path).header  # type: ignore[attr-defined]
            shape = [n for n in header.get_data_shape() if n > 1] or [1]
            zooms = [float(z) for z, n in zip(header.get_zooms(), header.get_data_shape(), strict=False) if n > 1]
        except Exception as error:
            broken.append(type(error).__name__)
            continue
        shapes.append(shape[:3])
        spacings.append(zooms[:3])
    flat = [len(shape) for shape in shapes]
    usual = max(set(flat), key=flat.count) if flat else 0
    kept = [place for place, axes in enumerate(flat) if axes == usual]
    if usual not in (2, 3):
        return None, broken
    return Form(np.array([shapes[place] for place in kept]), np.array([spacings[place] for place in kept])), broken


def image_recipe(
    channels: Sequence[str], source: dict[str, Any] | list, form: Form, what: str = "header"
) -> tuple[dict[str, Any], list[str]]:
    """Keys of an image modality that fit what some headers say, and what a person should decide."""
    shape, spacing = np.median(form.shapes, axis=0), np.median(form.spacings, axis=0)
    notes = [
        f"{counted(len(form.shapes), what)} read: {_range(form.shapes)} voxels of {_range(form.spacings)} mm.",
    ]
    sized = (spacing > 0).all() and len(shape) == 3
    extent = shape * spacing
    wanted = np.maximum(spacing, extent / LONGEST) if sized else spacing
    if sized and wanted.max() < spacing.max() * 0.999:
        wanted = np.maximum(wanted, spacing)
    size = [int(max(STEP, STEP * np.ceil(n / STEP))) for n in (np.round(extent / wanted, 3) if sized else shape)]
    recipe: dict[str, Any] = {"kind": "image", "channels": list(channels), "source": source}
    uneven = len(np.unique(form.shapes, axis=0)) > 1
    if sized and np.allclose(form.spacings, 1) and uneven and form.shapes[:, -1].max() > 1.5 * form.shapes[:, -1].min():
        recipe |= {"spacing": "untrue", "size": [*size[:2], size[2]], "stretch": ["z"]}
        notes.append(
            "DECIDE: every header says 1 mm, and the number of slices varies: a default, not a measurement? Hence "
            "`untrue`, with slices brought to one number; set `spacing: native` if 1 mm is true."
        )
        return recipe, notes
    if sized:
        recipe["spacing"] = [round(float(number), 3) for number in wanted]
        notes.append("DECIDE `spacing` and `size`: what is shorter is padded, what is longer is cropped to the middle.")
    recipe["size"] = size
    return recipe, notes


def _range(numbers: np.ndarray) -> str:
    """The least and the most along each axis: ``128 x 128 x 20-88``."""
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    return " x ".join(f"{a:.4g}" if np.isclose(a, b) else f"{a:.4g}-{b:.4g}" for a, b in zip(low, high, strict=True))


def _add(
    listing: Listing,
    findings: Findings,
    name: str,
    recipe: dict[str, Any],
    notes: list[str],
    series: Series,
    form: Form,
    channels: Sequence[str],
) -> None:
    if name == "ct":
        recipe["intensity"] = {"rule": "window", "low": -1000, "high": 400}
        notes.append(
            "Taken for CT by its name: Hounsfield units from -1000 to 400 (lung and soft tissue); choose yours."
        )
    each = listed([f"{channel or 'scan'} {len(series.channels[channel])}" for channel in channels])
    modality = FoundModality(
        recipe,
        series.pattern,
        f"{counted(len(series.patients), 'patient')}; {each}; {_range(form.shapes)} voxels",
        notes,
        sorted(series.patients),
    )
    problem = try_images(listing, recipe, len({f for c in channels for f in series.channels[c]}))
    if problem:
        findings.put_aside(series.pattern, problem)
        return
    findings.add(name, modality)


def try_images(listing: Listing, recipe: dict[str, Any], files: int) -> str:
    """What stands against the pattern of an image modality: the source itself lists its scans."""
    source = recipe["source"]
    part = image_sources[source["format"]]
    try:
        scans = part(part.Config(**source), listing.folder, recipe["channels"]).list_scans()
    except ChiasmaError as error:
        return f"{error.what}. {error.fix}."
    return "" if len(scans) >= files else f"the pattern finds {len(scans)} of {files} files; write it by hand"


def _place_pictures(listing: Listing, findings: Findings, series: Series) -> None:
    from PIL import Image

    files = [name for names in series.channels.values() for name in names]
    listing.take(files)
    if series.aside:
        findings.put_aside_many(files, series.aside)
        return
    slices = len(series.channels) > 1 and all(re.search(r"\d", name) for name in series.channels)
    pattern = series.pattern.replace("{channel}", "*") if slices else series.pattern
    channels = ["scan"] if slices or list(series.channels) == [""] else sorted(series.channels)
    chosen = [files[place] for place in evenly(len(files), LOOKED_AT)]
    try:
        opened = [Image.open(listing.path(name)) for name in chosen]
    except OSError as error:
        findings.put_aside(pattern, f"cannot be read as pictures: {error}")
        return
    shapes, colour = np.array([image.size for image in opened]), {image.mode for image in opened}
    source: dict[str, Any] = {"format": "image_stack", "files": pattern}
    per_scan = round(len(files) / max(1, len(series.patients)))
    deep = slices and per_scan > 1
    if deep:
        shapes = np.column_stack([shapes, np.full(len(shapes), per_scan)])
    recipe, notes = image_recipe(channels, source, Form(shapes, np.ones((len(shapes), shapes.shape[1]))))
    recipe.pop("stretch", None)
    recipe["spacing"] = "untrue"
    notes = [f"{counted(len(files), 'picture')}, {listed(sorted(colour))}; such files do not say their place in space."]
    if colour & {"RGB", "RGBA", "P"}:
        recipe["channels"], source["rgb"] = ["red", "green", "blue"], True
        notes.append("In colour: three channels. If it is grey saved as colour, one channel and no `rgb` reads it too.")
    notes += [series.note] * bool(series.note)
    problem = try_images(listing, recipe, 1)
    if problem:
        findings.put_aside(pattern, problem)
        return
    holds = f"{counted(len(series.patients), 'patient')}; {_range(shapes)} pixels"
    findings.add("picture", FoundModality(recipe, pattern, holds, notes, sorted(series.patients)))
