"""Several prepared cohorts read as one: records numbered over all, modalities, channels and features joined by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from foundation.cohort.manifest import ImageEntry, Manifest
from foundation.cohort.reading.feature_names import match_names
from foundation.cohort.records import STATISTICS, Annotation
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united_forms import united_annotations, united_endpoints, united_entry, united_features
from foundation.errors import ConfigError, DataError, nearest
from foundation.progress import Progress
from foundation.wording import counted, listed

BLOCK_VALUES = 8_000_000

EqualNames = Literal["same_patient", "different_patients"]
"""What it means that two cohorts use the same name of a patient."""


class Part(NamedTuple):
    """Some records of one of the cohorts, and how it has a modality.

    Attributes:
        cohort: Which.
        here: [n] where in the rows that were asked for these records are.
        rows: [n] their rows in the cohort.
        places: [C] or [F] where each channel or feature of the united modality is in the cohort, -1 where it is not.
    """

    cohort: PreparedCohort
    here: np.ndarray
    rows: np.ndarray
    places: np.ndarray


class UnitedCohort(PreparedCohort):
    """Prepared cohorts that read like one; a modality that a cohort lacks is absent in its records.

    A patient of the same name in two cohorts is one patient: held out from both or from neither, and never a negative
    of itself. Where names are equal by accident, each cohort's patients and sites get its name in front. Groups are a
    cohort's own, or its name where it has none, so that survival is compared within a cohort.

    Args:
        cohorts: Name to cohort, in the order of the rows.
        modalities: Those that are read; None for all. Others need not agree.
        equal_names: What equal names of patients mean; None where there are none.

    Raises:
        ConfigError: No cohort has a modality; or patients of two cohorts have the same name, and nothing says why.
        DataError: Two cohorts prepared a modality differently.
    """

    def __init__(
        self,
        cohorts: Mapping[str, PreparedCohort],
        modalities: Sequence[str] | None = None,
        equal_names: EqualNames | None = None,
    ) -> None:
        self.cohorts = dict(cohorts)
        self.equal_names = equal_names
        self.path = listed([str(cohort.path) for cohort in cohorts.values()])
        self._parts = list(self.cohorts.values())
        self._starts = np.concatenate([[0], np.cumsum([len(cohort) for cohort in self._parts])]).astype(np.int64)
        self._asked = None if modalities is None else list(modalities)
        names = self._names(modalities)
        self.features = {
            name: united_features([cohort.features[name] for cohort in self._parts if name in cohort.features])
            for name in names
            if any(name in cohort.features for cohort in self._parts)
        }
        endpoints, self._endpoint_names = united_endpoints({n: c.manifest.endpoints for n, c in cohorts.items()})
        entries = {
            name: united_entry(
                name,
                {n: c.manifest.modalities[name] for n, c in cohorts.items() if name in c.modalities},
                self.features.get(name, ()),
            )
            for name in names
        }
        _refuse_unexplained(self.cohorts, equal_names)
        self.manifest = Manifest(
            name=listed(list(cohorts)),
            patients=self.count_patients(np.arange(len(self.patients))),
            records=int(self._starts[-1]),
            modalities=entries,
            patterns={},
            endpoints=endpoints,
            sites={},
            groups={},
            annotations=united_annotations({n: c.manifest.annotations for n, c in cohorts.items()}, list(entries)),
            folds={},
            sources={},
            quarantined=sum(cohort.manifest.quarantined for cohort in self._parts),
            versions={},
            fingerprint="",
        )

    def __reduce__(self) -> tuple:
        return (UnitedCohort, (self.cohorts, self._asked, self.equal_names))

    def _names(self, modalities: Sequence[str] | None) -> list[str]:
        known = list(dict.fromkeys(name for cohort in self._parts for name in cohort.modalities))
        for name in modalities or ():
            if name not in known:
                fix = nearest(name, known)
                raise ConfigError(f"no modality is called '{name}'", where="preprocessing.modalities", fix=fix)
        return known if modalities is None else list(modalities)

    @property
    def remote(self) -> bool:
        """Whether records of any of them are fetched before they are read."""
        return any(cohort.remote for cohort in self._parts)

    @property
    def shards(self) -> int:
        """Number of files of records, of all cohorts."""
        return int(self._shard_starts[-1])

    @property
    def shards_at_a_time(self) -> int:
        """How many shards a process may hold of each cohort, and as many be on their way; see `PreparedCohort`."""
        return min(cohort.shards_at_a_time for cohort in self._parts)

    @cached_property
    def _shard_starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([cohort.shards for cohort in self._parts])]).astype(np.int64)

    def shards_of(self, rows: np.ndarray) -> np.ndarray:
        """[N] number of the shard that holds each of these records; shards are numbered over all, too."""
        rows = np.asarray(rows, dtype=np.int64)
        part_of, shards = np.searchsorted(self._starts, rows, side="right") - 1, np.empty(len(rows), dtype=np.int64)
        for part in np.unique(part_of).tolist():
            here = part_of == part
            shards[here] = self._shard_starts[part] + self._parts[part].shards_of(rows[here] - self._starts[part])
        return shards

    def fetch(self, shard: int) -> None:
        """Have a shard on a local disk, for whoever reads it soon; may be called from any thread."""
        part = int(np.searchsorted(self._shard_starts, shard, side="right")) - 1
        self._parts[part].fetch(shard - int(self._shard_starts[part]))

    def observed_counts(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """None: each cohort counts its own features; see `observed_N` in foundation/data/presence.py."""
        return None

    def verify(self, progress: Progress | None = None) -> None:
        """See `PreparedCohort.verify`."""
        for cohort in self._parts:
            cohort.verify(progress)

    def of_cohort(self) -> np.ndarray:
        """[N] int64, the position of each record's cohort."""
        return np.repeat(np.arange(len(self._parts)), np.diff(self._starts))

    def parts_with(self, name: str, rows: Sequence[int] | np.ndarray) -> Iterator[Part]:
        """The cohorts that have a modality and some of these rows."""
        rows = np.asarray(rows, dtype=np.int64)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(part_of).tolist():
            if (part, name) in self._places:
                here = np.flatnonzero(part_of == part)
                yield Part(self._parts[part], here, rows[here] - self._starts[part], self._places[part, name])

    @cached_property
    def own_names(self) -> np.ndarray:
        """[N] patient of every record, as its cohort calls them."""
        return np.concatenate([cohort.patients for cohort in self._parts])

    @cached_property
    def patients(self) -> np.ndarray:
        """[N] patient of every record."""
        return self._told_apart(self.own_names)

    @cached_property
    def time_points(self) -> np.ndarray:
        """[N] time point of every record, empty where there is one only."""
        return np.concatenate([cohort.time_points for cohort in self._parts])

    @cached_property
    def sites(self) -> np.ndarray:
        """[N] site of every record, empty where unknown."""
        return self._told_apart(np.concatenate([cohort.sites for cohort in self._parts]))

    def _told_apart(self, names: np.ndarray) -> np.ndarray:
        if self.equal_names != "different_patients":
            return names
        cohorts = list(self.cohorts)
        pairs = zip(self.of_cohort().tolist(), names, strict=True)
        return np.array([f"{cohorts[part]}:{name}" if name else "" for part, name in pairs], dtype=object)

    @cached_property
    def groups(self) -> np.ndarray:
        """[N] group of every record, the name of its cohort where that has none."""
        parts = [np.where(cohort.groups == "", name, cohort.groups) for name, cohort in self.cohorts.items()]
        return np.concatenate(parts).astype(object)

    @cached_property
    def present_NM(self) -> np.ndarray:
        """[N, M] bool: the modality is present."""
        present = np.zeros((len(self), len(self.modalities)), dtype=bool)
        for cohort, start in zip(self._parts, self._starts, strict=False):
            for m, name in enumerate(self.modalities):
                if name in cohort.modalities:
                    column = cohort.present_NM[:, cohort.modalities.index(name)]
                    present[start : start + len(cohort), m] = column
        return present

    @cached_property
    def _places(self) -> dict[tuple[int, str], np.ndarray]:
        """Position of a cohort and modality to where each channel or feature is in it, -1 where it is not."""
        places = {}
        for part, cohort in enumerate(self._parts):
            for name, entry in self.manifest.modalities.items():
                if name not in cohort.modalities:
                    continue
                if isinstance(entry, ImageEntry):
                    here = list(cohort.image(name).channels)
                    found = [here.index(channel) if channel in here else -1 for channel in entry.channels]
                    places[part, name] = np.array(found, dtype=np.int64)
                else:
                    places[part, name] = match_names(self.features[name], cohort.features[name])
        return places

    def values_NF(self, name: str, rows: Sequence[int] | np.ndarray, features: slice = slice(None)) -> np.ndarray:
        """[N, F] float32 values of these records, NaN where not measured and where the modality is absent."""
        values = np.full((len(rows), len(self.features[name][features])), np.nan, dtype=np.float32)
        for part in self.parts_with(name, rows):
            _read(part, name, part.places[features], values)
        return values

    def _of_channels(self, name: str, rows: Sequence[int] | np.ndarray, read: str, empty: np.ndarray) -> np.ndarray:
        """What the method `read` gives for each channel, `empty` where a cohort lacks it."""
        gathered = np.repeat(empty[None], len(rows), axis=0)
        for part in self.parts_with(name, rows):
            known = np.flatnonzero(part.places >= 0)
            gathered[part.here[:, None], known] = getattr(part.cohort, read)(name, part.rows)[:, part.places[known]]
        return gathered

    def channels_NC(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, C] bool: the channel was acquired."""
        return self._of_channels(name, rows, "channels_NC", np.zeros(len(self.image(name).channels), dtype=bool))

    def statistics_NC4(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, C, 4] float32 low, high, mean and std of each channel's intensities, NaN where absent."""
        shape = (len(self.image(name).channels), len(STATISTICS))
        return self._of_channels(name, rows, "statistics_NC4", np.full(shape, np.nan, dtype=np.float32))

    def affine_N44(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, 4, 4] float64 from voxel indices (i, j, k, 1) to millimetres of the scan's world (RAS+).

        Raises:
            DataError: A cohort was prepared when affines were not kept.
        """
        self.image(name)
        affine = np.full((len(rows), 4, 4), np.nan)
        for part in self.parts_with(name, rows):
            affine[part.here] = part.cohort.affine_N44(name, part.rows)
        return affine

    def voxels(self, name: str, row: int) -> np.ndarray | None:
        """[C, *shape] voxels of one record, or None where absent; a view of the file where its cohort has all channels.

        Raises:
            DataError: The record holds more or fewer bytes than the image has.
        """
        self.image(name)
        part = next(self.parts_with(name, [row]), None)
        stored = None if part is None else part.cohort.voxels(name, int(part.rows[0]))
        if part is None or stored is None:
            return None
        place = part.places
        if len(place) == len(stored) and (place == np.arange(len(place))).all():
            return stored
        voxels = np.zeros((len(place), *stored.shape[1:]), dtype=stored.dtype)
        voxels[place >= 0] = stored[place[place >= 0]]
        return voxels

    def _annotated_parts(
        self, name: str, rows: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[PreparedCohort, np.ndarray, np.ndarray, list[int]]]:
        """The cohorts that have an annotation, and of each where its rows were asked for, its rows, its regions."""
        regions, rows = list(self.annotation_entry(name).regions), np.asarray(rows, dtype=np.int64)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(part_of).tolist():
            cohort, here = self._parts[part], np.flatnonzero(part_of == part)
            if name in cohort.manifest.annotations:
                places = [regions.index(region) for region in cohort.annotation_entry(name).regions]
                yield cohort, here, rows[here] - self._starts[part], places

    def annotated_NR(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, R] bool: somebody looked for the region in the image; see `PreparedCohort`."""
        annotated = np.zeros((len(rows), len(self.annotation_entry(name).regions)), dtype=bool)
        for cohort, here, own, places in self._annotated_parts(name, rows):
            annotated[here[:, None], places] = cohort.annotated_NR(name, own)
        return annotated

    def kept_NR(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """[N, R] float32 share of a region's source voxels that the stored image has; see `Annotation`."""
        kept = np.full((len(rows), len(self.annotation_entry(name).regions)), np.nan, dtype=np.float32)
        for cohort, here, own, places in self._annotated_parts(name, rows):
            kept[here[:, None], places] = cohort.kept_NR(name, own)
        return kept

    def annotation(self, name: str, row: int) -> Annotation | None:
        """What is drawn on the image of one record; a region that its cohort does not know was not looked for.

        Raises:
            DataError: No cohort has an annotation of this name, or the record holds more or fewer bytes than it has.
        """
        found = next(self._annotated_parts(name, [row]), None)
        drawn = None if found is None else found[0].annotation(name, int(found[2][0]))
        if found is None or drawn is None:
            return None
        regions = np.zeros((len(self.annotation_entry(name).regions), *drawn.regions.shape[1:]), dtype=bool)
        regions[found[3]] = drawn.regions
        return Annotation(regions, self.annotated_NR(name, [row])[0], self.kept_NR(name, [row])[0])

    def endpoint(self, name: str) -> dict[str, np.ndarray]:
        """Values of an endpoint over all records, missing where a cohort does not have it; see `PreparedCohort`."""
        if name not in self._endpoint_names:
            raise DataError(
                f"has no endpoint '{name}'", where=str(self.path), fix=nearest(name, self.manifest.endpoints)
            )
        found = {cohort: self.cohorts[cohort].endpoint(there) for cohort, there in self._endpoint_names[name].items()}
        parts = {}
        for part, values in next(iter(found.values())).items():
            missing = -1 if part == "code" else np.nan
            parts[part] = np.concatenate(
                [
                    found[n][part] if n in found else np.full(len(cohort), missing, dtype=values.dtype)
                    for n, cohort in self.cohorts.items()
                ]
            )
        return parts

    @cached_property
    def folds(self) -> dict[str, dict[str, str]]:
        """None: folds are published for one cohort."""
        return {}


def own_names(cohort: PreparedCohort) -> np.ndarray:
    """[N] patient of every record, as their cohort calls them: the names that fine-tuning knows."""
    return cohort.own_names if isinstance(cohort, UnitedCohort) else cohort.patients


def _read(part: Part, name: str, places_F: np.ndarray, into_NF: np.ndarray) -> None:
    """Fill in the values of the features at these places of a cohort, and leave those where the place is -1."""
    known = np.flatnonzero(places_F >= 0)
    if not len(known):
        return
    first, last = int(places_F[known].min()), int(places_F[known].max())
    alike = len(known) == len(places_F) == last - first + 1 and (np.diff(places_F) == 1).all()
    # Neighbours here may lie far apart there, and what lies between is read too: in blocks that bound memory.
    size = max(1, BLOCK_VALUES // (last - first + 1))
    for start in range(0, len(part.rows), size):
        block = slice(start, start + size)
        values_NF = part.cohort.values_NF(name, part.rows[block], slice(first, last + 1))
        if alike:
            into_NF[part.here[block]] = values_NF
        else:
            into_NF[part.here[block, None], known] = values_NF[:, places_F[known] - first]


def _refuse_unexplained(cohorts: Mapping[str, PreparedCohort], equal_names: EqualNames | None) -> None:
    """Refuse patients of two cohorts who have one name, or nearly so, unless it was said what that means."""
    if equal_names == "different_patients":
        return
    names = {name: set(cohort.patients) for name, cohort in cohorts.items()}
    plain = {name: {_plain(patient): patient for patient in patients} for name, patients in names.items()}
    for one, other in combinations(cohorts, 2):
        both = names[one] & names[other]
        alike = [key for key in plain[one].keys() & plain[other].keys() if plain[one][key] != plain[other][key]]
        if alike:
            raise DataError(
                f"{counted(len(alike), 'patient has a name', 'patients have names')} in '{one}' and in '{other}' that "
                "differ in case or separators only",
                where="cohorts",
                fix="prepare both with the same `patients.normalise`, so that a patient has one name; or set "
                "`equal_names: different_patients`",
            )
        if both and equal_names is None:
            raise ConfigError(
                f"{counted(len(both), 'name of a patient is', 'names of patients are')} in both '{one}' and '{other}'",
                where="cohorts",
                fix="set `equal_names: same_patient` where a name means the same person everywhere, or "
                "`equal_names: different_patients` where each cohort counts for itself",
            )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name).casefold()
