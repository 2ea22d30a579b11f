"""Who the simulated patients are: a latent of eight numbers, a subtype, age, sex and stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundation.simulation.sites import Site, site_of
from foundation.simulation.streams import stream

LATENT = ("side", "depth", "brightness", "size", "height", "texture", "elongation", "necrosis")
"""The latent's dimensions, called by what they do to the lesion; each has mean 0 and variance 1 over patients."""

SUBTYPES = ("S1", "S2", "S3", "S4")

SEPARATION = 1.6
"""Distance of a subtype's centre from 0 along `side`, `depth` and `brightness`, in within-subtype deviations."""

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
"""Corners of a tetrahedron: no single dimension tells more than two pairs of subtypes apart."""

STAGE_CUTS = (-0.9, 0.1, 1.0)


@dataclass(frozen=True)
class Patient:
    """One simulated patient, before any scan or assay.

    Attributes:
        index: Position in the cohort, from 0; keys the patient's random streams.
        site: Where the patient is treated.
        latent: [8], in the order of `LATENT`.
        subtype: Position in `SUBTYPES`.
        age: Years.
        sex: ``F`` or ``M``.
        stage: 1 to 4.
    """

    index: int
    site: Site
    latent: np.ndarray
    subtype: int
    age: int
    sex: str
    stage: int

    @property
    def name(self) -> str:
        """The patient's name, ``SIM-<site>-<number>``."""
        return f"SIM-{self.site.number:02d}-{self.index + 1:04d}"

    def value(self, dimension: str) -> float:
        """One dimension of the latent by its name."""
        return float(self.latent[LATENT.index(dimension)])


def draw_patient(seed: int, index: int) -> Patient:
    """Draw the patient at a position of the cohort: the same whatever the number of patients."""
    random = stream(seed, "patient", index)
    subtype = int(random.integers(len(SUBTYPES)))
    latent = random.standard_normal(len(LATENT))
    latent[:3] = (latent[:3] + SEPARATION * CORNERS[subtype]) / np.hypot(1, SEPARATION)
    size, necrosis = latent[LATENT.index("size")], latent[LATENT.index("necrosis")]
    age = 60 + 11 * (0.3 * size + random.standard_normal())
    severity = 0.7 * size + 0.4 * necrosis + 0.7 * random.standard_normal()
    return Patient(
        index=index,
        site=site_of(seed, index),
        latent=latent,
        subtype=subtype,
        age=int(np.clip(round(age), 20, 90)),
        sex="FM"[int(random.integers(2))],
        stage=1 + int(np.searchsorted(STAGE_CUTS, severity)),
    )


def subtype_probabilities(latent_ND: np.ndarray) -> np.ndarray:
    """What the latent says about the subtype at best: Bayes' rule on the four equal Gaussians it is drawn from.

    Args:
        latent_ND: [N, 8].

    Returns:
        [N, 4] probabilities.
    """
    scaled_N3 = latent_ND[:, :3] * np.hypot(1, SEPARATION)
    log_odds_NK = scaled_N3 @ (SEPARATION * CORNERS.T)
    odds_NK = np.exp(log_odds_NK - log_odds_NK.max(axis=1, keepdims=True))
    return odds_NK / odds_NK.sum(axis=1, keepdims=True)
