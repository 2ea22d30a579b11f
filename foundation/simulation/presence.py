"""What a simulated patient lacks: whole modalities, one channel of a scan, an endpoint; by site and by stage."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.simulation.latent import Patient
from foundation.simulation.streams import stream

CHANNELS = ("t1", "flair")

ASSAYS = {"rna": 0.14, "mutation": 0.15, "cnv": 0.15, "protein": 0.25}
"""Assay to the fraction of patients with tissue whose assay was not run or failed."""

TISSUE_LOST_PER_STAGE = 0.04
"""Advanced tumours are operated on less often, so less tissue of them is kept."""

SITE_WITHOUT_PROTEIN = 4


@dataclass(frozen=True)
class Presence:
    """What there is of a patient.

    Attributes:
        channels: Channels that were scanned; none for a patient without a scan.
        assays: Names of `ASSAYS` that were run.
        samples: RNA samples beside the primary ``01A``: normal ``11A``, second vial ``01B``, recurrence ``02A``.
        blood: Whether the copy number of the patient's blood, ``10A``, was measured too.
        subtype: Whether the subtype was determined.
        response: Whether the response was assessed.
        age: Whether the age was recorded.
        toxicity: Whether side effects were recorded.
        seizure: Whether seizures were recorded.
    """

    channels: tuple[str, ...]
    assays: frozenset[str]
    samples: tuple[str, ...]
    blood: bool
    subtype: bool
    response: bool
    age: bool
    toxicity: bool
    seizure: bool


def draw_presence(seed: int, patient: Patient) -> Presence:
    """Draw what there is of a patient."""
    random = stream(seed, "presence", patient.index)
    site = patient.site
    draw = random.random
    channels = () if draw() < site.without_scan else CHANNELS
    only, lone = draw() < site.one_channel, CHANNELS[int(draw() < 0.5)]
    if channels and only:
        channels = (lone,)
    tissue = draw() >= site.without_tissue + TISSUE_LOST_PER_STAGE * (patient.stage - 1)
    run = {name: draw() >= failed for name, failed in ASSAYS.items()}
    run["protein"] &= site.number != SITE_WITHOUT_PROTEIN or draw() < 0.2
    assays = frozenset(name for name, done in run.items() if tissue and done)
    # By chance alone: by stage, which the latent moves, those who are told would not be symmetric in the latent.
    recorded = stream(seed, "recorded", patient.index).random
    further = {"11A": 0.08, "01B": 0.05, "02A": 0.04}
    samples = tuple(kind for kind, fraction in further.items() if draw() < fraction)
    return Presence(
        channels=channels,
        assays=assays,
        samples=samples if "rna" in assays else (),
        blood="cnv" in assays and draw() < 0.15,
        subtype=draw() >= 0.05,
        response=draw() >= 0.10 + 0.04 * patient.stage,
        age=draw() >= 0.02,
        toxicity=recorded() >= 0.12,
        seizure=recorded() >= 0.08,
    )
