"""A prepared cohort with one more modality for each finder: what it finds in the images, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foundation.cohort.manifest import OmicsEntry
from foundation.cohort.store import PreparedCohort
from foundation.errors import ConfigError
from foundation.finding.finder import Finder, names_of
from foundation.progress import Progress


class FoundEntry(OmicsEntry):
    """A modality that describes what is found of an annotation in the images of `image`."""

    image: str


class FoundCohort(PreparedCohort):
    """The same records as another cohort, with what finders find in their images; each image is read once.

    Args:
        cohort: The prepared cohort.
        finders: Annotation to its finder; None where it is still to be learned, and then no value can be read.
        progress: Told of images.

    Raises:
        ConfigError: A modality has the name that what is found would have.
    """

    def __init__(
        self, cohort: PreparedCohort, finders: Mapping[str, Finder | None], progress: Progress | None = None
    ) -> None:
        self.__dict__.update({k: v for k, v in cohort.__dict__.items() if k not in ("present_NM", "_observed")})
        self.of, self.finders, self._progress = cohort, dict(finders), progress
        self._known: dict[str, dict[int, np.ndarray]] = {name: {} for name in names_of([*finders])}
        modalities, self.features = dict(cohort.manifest.modalities), dict(cohort.features)
        for annotation, name in zip(finders, self._known, strict=True):
            if name in modalities:
                what = f"a modality is called '{name}', as what is found of '{annotation}' would be"
                raise ConfigError(what, where="find", fix="rename the annotation or the modality in cohort.yaml")
            modalities[name] = self._entry_of(annotation)
            self.features[name] = self._features_of(annotation)
        self.manifest = cohort.manifest.model_copy(update={"modalities": modalities})

    def __reduce__(self) -> tuple:
        return (FoundCohort, (self.of, self.finders))

    def _image_of(self, annotation: str) -> str:
        finder = self.finders[annotation]
        return finder.document.image if finder else self.of.annotation_entry(annotation).image

    def _features_of(self, annotation: str) -> list[str]:
        finder = self.finders[annotation]
        if finder is not None:
            return finder.features
        from foundation.finding.description import features_of

        entry = self.of.annotation_entry(annotation)
        image = self.of.image(entry.image)
        return features_of([*entry.regions], [*image.channels], len(image.shape))

    def _entry_of(self, annotation: str) -> FoundEntry:
        image = self._image_of(annotation)
        there = self.of.manifest.modalities.get(image)
        patients = there.patients if there is not None else 0
        count = len(self._features_of(annotation))
        return FoundEntry(patients=patients, features=count, values="continuous", unit="", transform=[], image=image)

    @property
    def present_NM(self) -> np.ndarray:  # type: ignore[override]
        """See `PreparedCohort`; what is found is there where the image is."""
        base = self.of.present_NM
        absent = np.zeros(len(base), dtype=bool)
        places = [self._place(annotation) for annotation in self.finders]
        return np.column_stack([base, *(absent if place is None else base[:, place] for place in places)])

    def _place(self, annotation: str) -> int | None:
        image = self._image_of(annotation)
        return self.of.modalities.index(image) if image in self.of.modalities else None

    def observed_counts(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """See `PreparedCohort`; of what is found, all that channels of the image allow counts as observed."""
        if name not in self._known:
            return self.of.observed_counts(name, rows)
        here = self.present_NM[rows, self.modalities.index(name)]
        return np.where(here, len(self.features[name]), 0).astype(np.int32)

    def values_NF(self, name: str, rows: Sequence[int] | np.ndarray, features: slice = slice(None)) -> np.ndarray:
        """See `PreparedCohort`."""
        if name not in self._known:
            return self.of.values_NF(name, rows, features)
        rows = np.asarray(rows, dtype=np.int64)
        finder, known = self._finder(name), self._known[name]
        new = np.array([row for row in dict.fromkeys(rows.tolist()) if row not in known], dtype=np.int64)
        if len(new):
            known.update(zip(new.tolist(), finder.described(self.of, new, self._progress), strict=True))
        values = [known[row] for row in rows.tolist()]
        width = len(self.features[name])
        return np.array(values, dtype=np.float32).reshape(len(rows), width)[:, features]

    def _finder(self, name: str) -> Finder:
        finder: Any = dict(zip(self._known, self.finders.values(), strict=True))[name]
        assert finder is not None, f"'{name}' was not yet learned"
        return finder
