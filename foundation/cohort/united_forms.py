"""What several cohorts say of one modality or endpoint, as one; where two disagree, a refusal that names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from foundation.cohort.manifest import AnnotationEntry, ImageEntry, OmicsEntry, RegionEntry
from foundation.cohort.reading.feature_names import match_names
from foundation.errors import DataError
from foundation.modality import ImageForm, OmicsForm
from foundation.wording import listed

KEY_IN_YAML = {"shape": "size"}
"""Keys of a form that cohort.yaml calls otherwise."""


def refuse_disagreement(name: str, forms: Mapping[str, ImageForm | OmicsForm]) -> None:
    """Refuse a modality that cohorts prepared differently.

    Args:
        name: Of the modality.
        forms: Cohort to how it prepared the modality.

    Raises:
        DataError: Two differ; it names them, the key, and what to do.
    """
    (first, form), *others = forms.items()
    here = _compared(form)
    for other, another in others:
        there = _compared(another)
        for key, value in here.items():
            if there.get(key) != value:
                raise DataError(
                    f"'{name}' has {key} {value!r} in the cohort '{first}' and {there.get(key)!r} in '{other}'",
                    where="cohorts",
                    fix=f"prepare one of the two again, with the same modalities.{name}.{KEY_IN_YAML.get(key, key)} or "
                    f"under another name than '{name}'; or leave it out by naming others in `preprocessing.modalities`",
                )


def _compared(form: ImageForm | OmicsForm) -> dict[str, Any]:
    kind, keys = ("image", ImageForm) if isinstance(form, ImageForm) else ("omics", OmicsForm)
    return {"kind": kind, **form.model_dump(mode="json", include=set(keys.model_fields))}


def united_entry(
    name: str, entries: Mapping[str, ImageEntry | OmicsEntry], features: Sequence[str]
) -> ImageEntry | OmicsEntry:
    """One entry of cohort.json for a modality of several cohorts; patients of each are added.

    Args:
        name: Of the modality.
        entries: Cohort to its entry.
        features: Of all of them, where it is omics.

    Raises:
        DataError: The cohorts prepared it differently.
    """
    refuse_disagreement(name, entries)
    first, patients = next(iter(entries.values())), sum(entry.patients for entry in entries.values())
    if isinstance(first, OmicsEntry):
        return first.model_copy(update={"patients": patients, "features": len(features)})
    images = [entry for entry in entries.values() if isinstance(entry, ImageEntry)]
    channels: dict[str, int] = {}
    for entry in images:
        for channel, count in entry.channels.items():
            channels[channel] = channels.get(channel, 0) + count
    # An axis along which one cohort may not be mirrored, such as left and right, means something in all of them.
    mirror = [axis for axis in first.mirror if all(axis in entry.mirror for entry in images)]
    return first.model_copy(update={"patients": patients, "channels": channels, "mirror": mirror})


def united_features(features: Sequence[Sequence[str]]) -> list[str]:
    """Names of the features of several cohorts, each once, in the order in which they appear.

    An Ensembl id in two versions is one feature, under the name that came first.
    """
    united = list(features[0])
    for names in features[1:]:
        known = set(match_names(united, names).tolist())
        united += [name for position, name in enumerate(names) if position not in known]
    return united


def united_endpoints(
    endpoints: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """Endpoints of several cohorts: one where all that have it define it alike, else one for each of these cohorts.

    Args:
        endpoints: Cohort to the `endpoints` of its cohort.json.

    Returns:
        Name to what cohort.json would say of it, counts added; and name to cohort to the name it has there.
    """
    holders: dict[str, list[str]] = {}
    for cohort, entries in endpoints.items():
        for name in entries:
            holders.setdefault(name, []).append(cohort)
    entries, names = {}, {}
    for name, cohorts in holders.items():
        alike = len({_definition(endpoints[cohort][name]) for cohort in cohorts}) == 1
        for shared in [cohorts] if alike else [[cohort] for cohort in cohorts]:
            united = name if alike else f"{name} of {listed(shared)}"
            entries[united] = _added([endpoints[cohort][name] for cohort in shared])
            names[united] = dict.fromkeys(shared, name)
    return entries, names


def united_annotations(
    annotations: Mapping[str, Mapping[str, AnnotationEntry]], modalities: Collection[str]
) -> dict[str, AnnotationEntry]:
    """Annotations of several cohorts by name: regions of all, patients added.

    Args:
        annotations: Cohort to the `annotations` of its cohort.json.
        modalities: Those that are read; what is drawn on others is left out.

    Raises:
        DataError: Two cohorts draw an annotation on different images, or one draws boxes and the other masks.
    """
    united: dict[str, AnnotationEntry] = {}
    first: dict[str, str] = {}
    for cohort, entries in annotations.items():
        for name, entry in entries.items():
            if entry.image not in modalities:
                continue
            if name not in united:
                first[name], united[name] = cohort, entry.model_copy(deep=True)
                continue
            if (entry.image, entry.drawn) != (united[name].image, united[name].drawn):
                here, there = (f"{each.drawn} of '{each.image}'" for each in (united[name], entry))
                raise DataError(
                    f"annotation '{name}' is {here} in the cohort '{first[name]}' and {there} in '{cohort}'",
                    where="cohorts",
                    fix="prepare one of the two again, with another name for the annotation",
                )
            united[name] = _with_regions_of(united[name], entry)
    return united


def _with_regions_of(entry: AnnotationEntry, other: AnnotationEntry) -> AnnotationEntry:
    regions = dict(entry.regions)
    for name, found in other.regions.items():
        known = regions.get(name, RegionEntry())
        least = [each.least_kept for each in (known, found) if each.least_kept is not None]
        counts = {key: getattr(known, key) + getattr(found, key) for key in ("annotated", "patients", "cut", "lost")}
        regions[name] = RegionEntry(**counts, least_kept=min(least, default=None))
    return entry.model_copy(update={"patients": entry.patients + other.patients, "regions": regions})


def _definition(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry["kind"], entry.get("unit"), tuple(entry.get("classes", ())), tuple(entry.get("causes", ()))


def _added(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first entry with the counts of all; what is no count is left out."""
    added = {key: entries[0][key] for key in ("kind", "unit") if key in entries[0]}
    for key in ("patients", "events"):
        if key in entries[0]:
            added[key] = sum(entry[key] for entry in entries)
    for key in ("classes", "causes"):
        if key in entries[0]:
            added[key] = {name: sum(entry[key][name] for entry in entries) for name in entries[0][key]}
    return added
