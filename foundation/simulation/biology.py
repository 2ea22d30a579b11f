"""What the genes of a simulated cohort do: pathways, and the weights by which the latent reaches each assay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundation.cohort.reading.genome import ACROCENTRIC, ASSEMBLIES
from foundation.simulation.latent import LATENT
from foundation.simulation.sites import SITES
from foundation.simulation.streams import stream

GENES = 600
PATHWAYS, PATHWAY_GENES, SHARED_GENES = 12, 40, 4
CAUSAL_FRACTION = 0.7
DRIVERS_PER_DIMENSION, ARMS_PER_DIMENSION, PROTEINS_PER_PATHWAY = 3, 2, 4

CHROMOSOMES = {name: place for name, place in ASSEMBLIES["hg38"].items() if name != "X"}
"""Chromosome to its length and centromere; without X, of which men have one and women two."""

ARMS = tuple(f"{name}{arm}" for name in CHROMOSOMES for arm in "pq" if arm == "q" or name not in ACROCENTRIC)


@dataclass(frozen=True)
class Biology:
    """The fixed biology of one simulated cohort; D is the latent's width.

    Attributes:
        genes: Symbols.
        pathways: Pathway to the positions of its genes; neighbours share some, some genes are in none.
        activity: [pathways, D], the latent's weight in each pathway; the last two pathways have none.
        pathway_of: [genes], the pathway that moves the gene, or -1.
        loading: [genes], log2 expression per unit of that pathway's activity.
        base: [genes], log2 expression at rest.
        site_shift: [sites, genes], log2 batch effect.
        drivers: [genes, D], log odds of a mutation per unit of the latent.
        mutability: [genes], log odds of a mutation at rest.
        arms: [arms, D], log odds of a gain (against a loss) per unit of the latent.
        proteins: Positions of the genes whose protein is measured.
    """

    genes: tuple[str, ...]
    pathways: dict[str, np.ndarray]
    activity: np.ndarray
    pathway_of: np.ndarray
    loading: np.ndarray
    base: np.ndarray
    site_shift: np.ndarray
    drivers: np.ndarray
    mutability: np.ndarray
    arms: np.ndarray
    proteins: np.ndarray


def draw_biology(seed: int) -> Biology:
    """Draw the biology that all patients of a cohort share."""
    random = stream(seed, "genome")
    order = random.permutation(GENES)
    blocks = [order[k * PATHWAY_GENES : (k + 1) * PATHWAY_GENES] for k in range(PATHWAYS)]
    pathway_of = np.full(GENES, -1)
    for k, block in enumerate(blocks):
        pathway_of[block] = k
    causal = (pathway_of >= 0) & (random.random(GENES) < CAUSAL_FRACTION)
    sign = np.where(random.random(GENES) < 0.3, -1, 1)
    drivers, mutability = _drivers(blocks, random)
    return Biology(
        genes=tuple(f"GENE{number:04d}" for number in range(1, GENES + 1)),
        pathways={
            f"SIM_PATHWAY_{k + 1:02d}": np.sort(np.concatenate([block, blocks[(k + 1) % PATHWAYS][:SHARED_GENES]]))
            for k, block in enumerate(blocks)
        },
        activity=_activity(),
        pathway_of=pathway_of,
        loading=np.where(causal, sign * random.uniform(0.4, 0.9, GENES), 0.0),
        base=random.uniform(1, 9, GENES),
        site_shift=random.normal(0, 0.15, (len(SITES), GENES)),
        drivers=drivers,
        mutability=mutability,
        arms=_arms(random),
        proteins=np.sort(_proteins(blocks, causal)),
    )


def causal_genes(biology: Biology) -> list[tuple[str, str, str, float]]:
    """Every path from the latent to a gene.

    Returns:
        Rows of gene, assay, latent dimension, and weight per unit of the latent.
    """
    expression = biology.loading[:, None] * np.where(
        biology.pathway_of[:, None] >= 0, biology.activity[biology.pathway_of], 0.0
    )
    protein = np.zeros_like(expression)
    protein[biology.proteins] = expression[biology.proteins]
    weights = {"rna": expression, "mutation": biology.drivers, "protein": protein}
    return [
        (biology.genes[gene], assay, LATENT[dimension], float(weight[gene, dimension]))
        for assay, weight in weights.items()
        for gene, dimension in np.argwhere(weight != 0)
    ]


def _activity() -> np.ndarray:
    """One pathway per dimension, two that mix two dimensions each, and two that the latent does not reach."""
    activity = np.zeros((PATHWAYS, len(LATENT)))
    activity[: len(LATENT)] = np.eye(len(LATENT))
    for row, pair in enumerate([("side", "texture"), ("depth", "size")], start=len(LATENT)):
        activity[row, [LATENT.index(name) for name in pair]] = 0.7
    return activity


def _drivers(blocks: list[np.ndarray], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    drivers = np.zeros((GENES, len(LATENT)))
    mutability = random.normal(-4.5, 0.5, GENES)
    for dimension in range(len(LATENT)):
        genes = blocks[dimension][-DRIVERS_PER_DIMENSION:]
        drivers[genes, dimension] = random.choice([-1, 1], len(genes)) * random.uniform(1.2, 2.2, len(genes))
        mutability[genes] = random.uniform(-1.8, -0.6, len(genes))
    return drivers, mutability


def _arms(random: np.random.Generator) -> np.ndarray:
    arms = np.zeros((len(ARMS), len(LATENT)))
    chosen = random.permutation(len(ARMS))[: ARMS_PER_DIMENSION * len(LATENT)]
    for place, arm in enumerate(chosen):
        arms[arm, place % len(LATENT)] = random.choice([-1, 1]) * random.uniform(1.5, 2.5)
    return arms


def _proteins(blocks: list[np.ndarray], causal: np.ndarray) -> np.ndarray:
    return np.concatenate([block[causal[block]][:PROTEINS_PER_PATHWAY] for block in blocks])
