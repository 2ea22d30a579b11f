"""What each assay measures in a simulated patient's sample: RNA, protein, mutations, copy number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from foundation.simulation.biology import ARMS, CHROMOSOMES, Biology
from foundation.simulation.latent import LATENT, Patient
from foundation.simulation.streams import stream

MEASURED_WITH = 0.2
"""Standard deviation of what a tissue sample shows of a latent dimension."""

RNA_NOISE, PROTEIN_NOISE = 0.45, 0.35
PROTEIN_UNMEASURED = 0.04
SAMPLE_NUMBERS = {"01A": 0, "01B": 1, "02A": 2, "11A": 3}

CLASSES = ("Missense_Mutation", "Nonsense_Mutation", "Frame_Shift_Del", "Splice_Site", "Silent")
CLASS_FRACTIONS = (0.6, 0.1, 0.1, 0.05, 0.15)
SILENT = CLASSES.index("Silent")

PROBE_DISTANCE = 40_000
"""Bases between two probes of the copy-number array."""


@dataclass(frozen=True)
class Hit:
    """One mutation: the gene's position among the genes, its class, and where in the gene it lies."""

    gene: int
    variant: str
    residue: int


def rna(seed: int, biology: Biology, patient: Patient, sample: str) -> np.ndarray:
    """Transcripts per million of every gene in one sample.

    Args:
        seed: The cohort's seed.
        biology: The cohort's biology.
        patient: Whose sample it is.
        sample: Sample type and vial, such as ``01A``; a normal (``11A``) shows nothing of the latent.

    Returns:
        [genes], at least 0.
    """
    random = stream(seed, "rna", patient.index, SAMPLE_NUMBERS[sample])
    activity = _activity(biology, patient, random)
    if sample.startswith("11"):
        activity = np.full_like(activity, -1.0)
    elif sample.startswith("02"):
        # A recurrence is another tumour state than the one that was scanned.
        activity = activity + random.normal(0, 0.8, len(activity))
    level = biology.base + biology.loading * activity[biology.pathway_of] + biology.site_shift[patient.site.number - 1]
    level += random.normal(0, RNA_NOISE, len(level)) + random.normal(0, 0.15)
    tpm = np.exp2(level)
    return np.where(tpm < 0.5, 0.0, tpm)


def protein(seed: int, biology: Biology, patient: Patient) -> np.ndarray:
    """Relative abundance of the measured proteins in the primary sample.

    Returns:
        [proteins], about z-scores, NaN where the antibody failed.
    """
    random = stream(seed, "protein", patient.index)
    genes = biology.proteins
    activity = _activity(biology, patient, random)
    level = biology.loading[genes] * activity[biology.pathway_of[genes]]
    level += 0.8 * biology.site_shift[patient.site.number - 1, genes] + random.normal(0, PROTEIN_NOISE, len(genes))
    return np.where(random.random(len(genes)) < PROTEIN_UNMEASURED, np.nan, level)


def mutations(seed: int, biology: Biology, patient: Patient) -> list[Hit]:
    """The mutations of the primary sample: drivers that the latent asks for, passengers, and silent ones."""
    random = stream(seed, "mutation", patient.index)
    log_odds = biology.mutability + biology.drivers @ patient.latent
    hit = np.flatnonzero(random.random(len(log_odds)) < 1 / (1 + np.exp(-log_odds)))
    variants = random.choice(len(CLASSES), len(hit), p=CLASS_FRACTIONS)
    residues = random.integers(1, 600, len(hit))
    is_driver = biology.drivers[hit].any(axis=1)
    # A driver that is hit is changed: a silent hit would drive nothing.
    variants[is_driver & (variants == SILENT)] = 0
    return [Hit(int(gene), CLASSES[k], int(place)) for gene, k, place in zip(hit, variants, residues, strict=True)]


def segments(seed: int, biology: Biology, patient: Patient, *, normal: bool) -> list[tuple[str, int, int, int, float]]:
    """Copy-number segments of the primary tumour or of the patient's blood.

    Returns:
        Rows of chromosome, start, end, probes and mean log2 ratio, hg38.
    """
    random = stream(seed, "cnv", patient.index, int(normal))
    purity = random.uniform(0.5, 0.9)
    lean = biology.arms @ patient.latent
    caused = biology.arms.any(axis=1)
    # A causal arm is gained or lost by its own log odds, any other now and then.
    gained = random.random(len(ARMS)) < np.where(caused, 1 / (1 + np.exp(1.2 - lean)), 0.06)
    lost = random.random(len(ARMS)) < np.where(caused, 1 / (1 + np.exp(1.2 + lean)), 0.06)
    copies = (gained.astype(int) - lost) * (not normal)
    means = np.log2(1 + copies * purity / 2)
    rows = []
    for arm, mean in zip(ARMS, means, strict=True):
        length, centromere = CHROMOSOMES[arm[:-1]]
        start, end = (1, centromere) if arm.endswith("p") else (centromere + 1, length)
        cuts = np.unique(random.integers(start, end, int(random.integers(3))))
        edges = [start - 1, *cuts.tolist(), end]
        for before, right in pairwise(edges):
            left = before + 1
            probes = max(1, (right - left) // PROBE_DISTANCE)
            rows.append((arm[:-1], left, right, probes, round(float(mean + random.normal(0, 0.04)), 4)))
    return rows


def _activity(biology: Biology, patient: Patient, random: np.random.Generator) -> np.ndarray:
    shown = patient.latent + MEASURED_WITH * random.standard_normal(len(LATENT))
    activity = biology.activity @ shown
    unrelated = ~biology.activity.any(axis=1)
    activity[unrelated] += random.standard_normal(int(unrelated.sum()))
    return activity
