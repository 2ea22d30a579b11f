"""Embeddings of some records with their patients, sites and groups: the input of `space` and `probes`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundation.errors import DataError


@dataclass
class Embedded:
    """Embeddings of some records, and who they are.

    Attributes:
        patients: [N] str.
        sites: [N] str, empty where unknown.
        groups: [N] str, empty where there are none.
        views: View, such as a modality or ``fused``, to [N, D] float32, normalised; anything where it is absent.
        present: View to [N] bool.
        endpoints: Endpoint to its parts [N], as `PreparedCohort.endpoint` gives them.
    """

    patients: np.ndarray
    sites: np.ndarray
    groups: np.ndarray
    views: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    endpoints: dict[str, dict[str, np.ndarray]]

    def refuse_non_finite(self) -> None:
        """Refuse embeddings with NaN or infinity where the view is present.

        Raises:
            DataError: There are some.
        """
        for name, values_ND in self.views.items():
            bad = int((~np.isfinite(values_ND).all(axis=1) & self.present[name]).sum())
            if bad:
                raise DataError(
                    f"the view '{name}' of {bad} records has an embedding that is not finite",
                    where="evaluation",
                    fix="training diverged: lower the learning rate",
                )
