"""Embeddings by patient: the mean over the records that have a view, with the known value of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pretrain.evaluation.embedded import Embedded

MOST_PATIENTS = 5000
"""Patients that a probe is fitted or scored on; more are thinned out evenly, so that pairs of them fit in memory."""


@dataclass
class Patients:
    """One row per patient who has a view and a known value.

    Attributes:
        x_ND: [N, D] mean embedding.
        parts: The endpoint's parts, [N] each.
        groups: [N] str.
    """

    x_ND: np.ndarray
    parts: dict[str, np.ndarray]
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.x_ND)

    def where(self, keep_N: np.ndarray) -> Patients:
        """Those of them that `keep_N`, a mask or positions, names."""
        parts = {part: values[keep_N] for part, values in self.parts.items()}
        return Patients(self.x_ND[keep_N], parts, self.groups[keep_N])


def gather(embedded: Embedded, view: str, parts: Mapping[str, np.ndarray]) -> Patients:
    """One row per patient who has the view and a known value, sorted by patient; values of their first such record."""
    known = np.all([values >= 0 if part == "code" else np.isfinite(values) for part, values in parts.items()], axis=0)
    rows = np.flatnonzero(embedded.present[view] & known)
    _, first, of_patient = np.unique(embedded.patients[rows].astype(str), return_index=True, return_inverse=True)
    x_ND = np.zeros((len(first), embedded.views[view].shape[1]))
    np.add.at(x_ND, of_patient, embedded.views[view][rows].astype(np.float64))
    x_ND /= np.bincount(of_patient, minlength=len(first))[:, None]
    chosen = rows[first]
    gathered = {part: values[chosen] for part, values in parts.items()}
    patients = Patients(x_ND, gathered, embedded.groups[chosen].astype(str))
    return patients.where(np.linspace(0, len(x_ND) - 1, min(len(x_ND), MOST_PATIENTS)).round().astype(np.int64))
