"""What only a simulation can hand over: the latent, its weights in every assay, and an oracle's scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundation.simulation.biology import ARMS, Biology, causal_genes
from foundation.simulation.files import write_table
from foundation.simulation.latent import LATENT, SUBTYPES
from foundation.simulation.oracle import oracle
from foundation.simulation.subject import Subject


def write_truth(folder: Path, biology: Biology, subjects: Sequence[Subject]) -> None:
    """Write ``latent.tsv``, ``causal_genes.tsv``, ``causal_arms.tsv`` and ``oracle.json``."""
    folder.mkdir(exist_ok=True)
    write_table(
        folder / "latent.tsv",
        ["patient", *LATENT, "subtype", "linear_predictor", "response_score", "toxicity_score", "seizure_score"],
        (
            [
                s.patient.name,
                *(f"{value:.6f}" for value in s.patient.latent),
                SUBTYPES[s.patient.subtype],
                f"{s.outcome.linear_predictor:.6f}",
                f"{s.outcome.response_score:.6f}",
                f"{s.outcome.toxicity_score:.6f}",
                f"{s.outcome.seizure_score:.6f}",
            ]
            for s in subjects
        ),
    )
    write_table(
        folder / "causal_genes.tsv",
        ["gene", "modality", "latent", "weight"],
        ([gene, assay, dimension, f"{weight:.6f}"] for gene, assay, dimension, weight in causal_genes(biology)),
    )
    write_table(
        folder / "causal_arms.tsv",
        ["arm", "latent", "weight"],
        ([ARMS[arm], LATENT[dim], f"{biology.arms[arm, dim]:.6f}"] for arm, dim in np.argwhere(biology.arms != 0)),
    )
    (folder / "oracle.json").write_text(json.dumps(oracle(subjects), indent=2) + "\n")
