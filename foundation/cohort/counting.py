"""The counts in cohort.json, taken from the records as written: patients of each modality, patterns, endpoints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.cohort.manifest import AnnotationEntry, ImageEntry, Manifest, OmicsEntry, RegionEntry, Shard
from foundation.cohort.people import People
from foundation.cohort.spec import ImageRecipe, OmicsRecipe
from foundation.cohort.store import PreparedCohort

if TYPE_CHECKING:
    from foundation.cohort.inventory import Inventory


def count(
    inventory: Inventory,
    out: Path,
    sources: dict[str, Any],
    shards: dict[str, Shard],
    files: dict[str, Shard],
    quarantined: int,
    versions: dict[str, str],
) -> Manifest:
    """Count the records of a cohort.

    Args:
        inventory: What was prepared.
        out: Where its records are; only the small columns and the validity of the large are read.
        sources: What cohort.json says of the files.
        shards: Files of records.
        files: Files beside cohort.json that reading needs.
        quarantined: Rows of quarantine.tsv.
        versions: Name to version.
    """
    entries = {name: _entry(m, len(inventory.features.get(name, []))) for name, m in inventory.spec.modalities.items()}
    uncounted = Manifest(
        name=inventory.spec.name,
        patients=0,
        records=len(inventory.records),
        modalities=entries,
        patterns={},
        endpoints={name: values.summary() for name, values in inventory.endpoints.items()},
        sites={},
        groups={},
        annotations={
            name: AnnotationEntry(
                image=recipe.image,
                drawn="boxes" if recipe.boxes else "masks",
                regions={region: RegionEntry() for region in recipe.regions},
            )
            for name, recipe in inventory.spec.annotations.items()
        },
        folds={fold: dict(sorted(Counter(split.values()).items())) for fold, split in inventory.folds.items()},
        sources=sources,
        shards=shards,
        files=files,
        quarantined=quarantined,
        versions=versions,
        fingerprint=inventory.fingerprint,
    )
    people = People(PreparedCohort(out, uncounted))
    for (name, entry), patients in zip(entries.items(), people.present.sum(axis=0), strict=True):
        entry.patients = int(patients)
        if isinstance(entry, ImageEntry):
            entry.channels = dict(zip(entry.channels, map(int, people.channels(name).sum(axis=0)), strict=True))
    for name, entry in uncounted.annotations.items():
        _count_annotated(name, entry, people)
    return uncounted.model_copy(
        update={
            "patients": len(people),
            "patterns": _patterns(people.present, list(entries)),
            "sites": _sizes(people.sites),
            "groups": _sizes(people.groups),
        }
    )


def _entry(modality: ImageRecipe | OmicsRecipe, features: int) -> ImageEntry | OmicsEntry:
    """What cohort.json says of a modality, nobody counted yet."""
    if isinstance(modality, OmicsRecipe):
        return OmicsEntry(
            patients=0,
            features=features,
            values=modality.values,
            unit=modality.unit,
            transform=modality.transform,
        )
    return ImageEntry(
        patients=0,
        shape=list(modality.size),
        channels=dict.fromkeys(modality.channels, 0),
        orientation=modality.orientation,
        spacing=modality.spacing,
        intensity=modality.intensity,
        stored_as=modality.stored_as,
        mirror=list(modality.mirror),
        crop_foreground=modality.crop_foreground,
        foreground_above=modality.foreground_above,
        stretch=list(modality.stretch),
        background=modality.background,
    )


def _count_annotated(name: str, entry: AnnotationEntry, people: People) -> None:
    rows = np.arange(len(people.cohort))
    annotated_NR, kept_NR = people.cohort.annotated_NR(name, rows), people.cohort.kept_NR(name, rows)
    entry.patients = int(people.any_of(annotated_NR).any(axis=1).sum())
    cut_NR = (kept_NR > 0) & (kept_NR < 1)
    counts = [people.any_of(flags).sum(axis=0) for flags in (annotated_NR, kept_NR > 0, cut_NR, kept_NR == 0)]
    for at, region in enumerate(entry.regions.values()):
        region.annotated, region.patients, region.cut, region.lost = (int(count[at]) for count in counts)
        known = kept_NR[:, at][~np.isnan(kept_NR[:, at])]
        region.least_kept = round(float(known.min()), 4) if len(known) else None


def _patterns(present_PM: np.ndarray, modalities: list[str]) -> dict[str, int]:
    """Modalities joined by ``+`` to patients, the most frequent first."""
    patterns, counts = np.unique(present_PM, axis=0, return_counts=True)
    named = {
        "+".join(name for name, here in zip(modalities, pattern, strict=True) if here) or "none": int(size)
        for pattern, size in zip(patterns, counts, strict=True)
    }
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))


def _sizes(names: np.ndarray) -> dict[str, int]:
    """How often each name occurs; the empty, which is unknown, is left out."""
    return dict(sorted(Counter(name for name in names if name).items()))
