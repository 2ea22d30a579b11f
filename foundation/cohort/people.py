"""The records of a prepared cohort grouped by patient, and fixed samples of the patients."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from foundation.cohort.store import PreparedCohort


class People:
    """The records of a cohort seen as patients: a patient has what any of their records has.

    Args:
        cohort: The prepared cohort.
    """

    def __init__(self, cohort: PreparedCohort) -> None:
        self.cohort = cohort
        self.manifest = cohort.manifest
        _, self.first, self.patient_of = np.unique(cohort.patients, return_index=True, return_inverse=True)

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def present(self) -> np.ndarray:
        """[patients, M] bool: the modality is present."""
        return self.any_of(self.cohort.present_NM)

    def channels(self, name: str) -> np.ndarray:
        """[patients, C] bool: the channel was acquired; only of patients who have the image."""
        channels_PC = self.any_of(self.cohort.channels_NC(name, np.arange(len(self.cohort))))
        return channels_PC[self.present[:, self.cohort.modalities.index(name)]]

    def any_of(self, flags_NX: np.ndarray) -> np.ndarray:
        """[patients, X] bool: whether any record of a patient has a flag."""
        flags_PX = np.zeros((len(self), flags_NX.shape[1]), dtype=bool)
        np.logical_or.at(flags_PX, self.patient_of, flags_NX)
        return flags_PX

    @property
    def sites(self) -> np.ndarray:
        """[patients] site, empty where unknown."""
        return self.cohort.sites[self.first]

    @property
    def groups(self) -> np.ndarray:
        """[patients] group, empty where there is none."""
        return self.cohort.groups[self.first]

    def endpoint(self, name: str) -> dict[str, np.ndarray]:
        """Values of an endpoint, [patients] each."""
        return {part: values[self.first] for part, values in self.cohort.endpoint(name).items()}

    def sample(self, name: str, most: int) -> np.ndarray:
        """Rows of at most `most` patients who have a modality, one each, evenly spaced."""
        rows = self._one_row_each(name)
        return rows[evenly(len(rows), most)]

    def sample_of_sites(self, name: str, most: int) -> np.ndarray:
        """Rows of at most `most` patients who have a modality, from as many sites as possible, sorted by site."""
        rows = self._one_row_each(name)
        sites, site_of, sizes = np.unique(self.cohort.sites[rows].astype(str), return_inverse=True, return_counts=True)
        quota = _share_out(sizes, most)
        chosen = [np.flatnonzero(site_of == site)[evenly(sizes[site], quota[site])] for site in range(len(sites))]
        return rows[np.concatenate(chosen)]

    def _one_row_each(self, name: str) -> np.ndarray:
        rows = np.flatnonzero(self.cohort.present_NM[:, self.cohort.modalities.index(name)])
        _, first = np.unique(self.patient_of[rows], return_index=True)
        return rows[first]


def distinct(names: np.ndarray) -> np.ndarray:
    """Names, sorted, each once, as str."""
    return numbered(names)[0]


def numbered(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names, sorted, each once, as str; and where each name is among these. A million take a moment."""
    encoded = pa.array(names, pa.string()).dictionary_encode()
    known = encoded.dictionary.to_numpy(zero_copy_only=False).astype(str)
    order = np.argsort(known, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return known[order], place[encoded.indices.to_numpy()]


def evenly(count: int, most: int) -> np.ndarray:
    """Positions of at most `most` of `count` things, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def _share_out(sizes: np.ndarray, places: int) -> np.ndarray:
    """How many of `places` each site gets: one each in turn, as long as it has that many."""
    quota = np.zeros(len(sizes), dtype=np.int64)
    while places > 0 and (wanting := np.flatnonzero(quota < sizes)).size:
        served = wanting[evenly(len(wanting), places)]
        quota[served] += 1
        places -= len(served)
    return quota
