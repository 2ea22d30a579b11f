"""A model begins where training patients put it: factors they share, projections centred and whitened; nobody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.dataset import CohortDataset
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.linear.factors import shared_factors
from foundation.model.embedding import batches, embed
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.model.view import View
from pretrain.init import initialise

OMICS = ["rna", "mutation", "cnv", "protein"]


@pytest.fixture(scope="module")
def cohort(simulated: Path) -> PreparedCohort:
    return PreparedCohort(simulated / "cohort")


@pytest.fixture(scope="module")
def aligned(cohort: PreparedCohort) -> Aligned:
    config = PreprocessingConfig(modalities=["mri", *OMICS])
    return align(fit_preprocessing(cohort, np.arange(len(cohort)), config), cohort)


@pytest.fixture(scope="module")
def training(cohort: PreparedCohort) -> np.ndarray:
    return np.arange(0, len(cohort), 2)


def make_model(aligned: Aligned) -> MultimodalModel:
    torch.manual_seed(0)
    chunk = {"tokenizer": "chunk", "size": 16}
    omics = towers["omics_transformer"].Config(tokenizer=chunk, width=32, depth=1, heads=2)
    parts = {"mri": towers["vit2d"].tiny(), "omics": omics}
    return MultimodalModel(
        MultimodalConfig.of(aligned.preprocessing.described(), parts, fusions["gated_mean"].tiny(), 16)
    )


@pytest.fixture(scope="module")
def begun(aligned: Aligned, training: np.ndarray) -> MultimodalModel:
    model = make_model(aligned)
    torch.manual_seed(1)
    initialise(model, aligned, training, batch_size=16, factors=16)
    return model


@torch.no_grad()
def projected(model: MultimodalModel, aligned: Aligned, rows: np.ndarray, tower: str) -> np.ndarray:
    """[N, D] before normalisation, of the rows that have something for a tower."""
    found = []
    for batch in batches(model, CohortDataset(aligned, rows), rows):
        output = model(batch, {tower: View(tower)})[tower]
        found.append(model.projections[tower](output.tokens.pooled_BD))
    return torch.cat(found).double().numpy()


@pytest.mark.parametrize("tower", ["mri", "omics"])
def test_projections_are_centred_and_no_direction_rules(begun, aligned, training, tower):
    x_ND = projected(begun, aligned, training, tower)
    variance_D = np.linalg.eigvalsh(np.cov(x_ND.T))
    assert np.abs(x_ND.mean(axis=0)).max() < 1e-3
    assert variance_D[-1] < 1.0 + 1e-3
    at_random = projected(make_model(aligned), aligned, training, tower)
    # At random all patients lie in about one direction from the origin.
    assert np.linalg.norm(at_random.mean(axis=0)) > 3 * np.sqrt(at_random.var(axis=0).sum())


def test_omics_embeddings_tell_the_factors_that_patients_share(begun, aligned, cohort, training):
    """Of held-out patients; a ridge from embeddings to factors, against the same from a model at random."""
    held_out = np.setdiff1d(np.arange(len(cohort)), training)
    read = {name: aligned.read_omics(name, training) for name in OMICS}
    weights = shared_factors(*({n: parts[i] for n, parts in read.items()} for i in (0, 1)), 16)
    values, observed, _ = aligned.read_omics("rna", np.arange(len(cohort)))
    factors_NK = (values @ weights["rna"])[:, :3]
    here = observed.any(axis=1)

    def told(model: MultimodalModel) -> float:
        z_ND = (
            embed(model, CohortDataset(aligned), np.arange(len(cohort)), {"rna": View("omics", ("rna",))})
            .z["rna"]
            .numpy()
        )
        fit, test = (rows[here[rows]] for rows in (training, held_out))
        x, y = z_ND[fit] - z_ND[fit].mean(0), factors_NK[fit] - factors_NK[fit].mean(0)
        # Of so few patients a weaker penalty would let directions count that hang on the last digit.
        map_DK = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
        error = factors_NK[test] - factors_NK[fit].mean(0) - (z_ND[test] - z_ND[fit].mean(0)) @ map_DK
        return 1 - float((error**2).sum() / ((factors_NK[test] - factors_NK[fit].mean(0)) ** 2).sum())

    # Nearly all of what the factors are, where a model at random tells next to nothing.
    assert told(begun) > 0.8 and told(make_model(aligned)) < 0.15


def test_more_factors_tell_more_of_one_assay(begun, aligned, cohort, training):
    """The leading components of one assay, told by a ridge from embeddings of training records."""
    few = make_model(aligned)
    torch.manual_seed(1)
    initialise(few, aligned, training, batch_size=16, factors=2)
    values, observed, _ = aligned.read_omics("protein", training)
    here = observed.any(axis=1)
    components_NK = np.linalg.svd(values[here] - values[here].mean(axis=0), full_matrices=False)[0][:, :8]

    def told(model: MultimodalModel) -> float:
        views = {"protein": View("omics", ("protein",))}
        z_ND = embed(model, CohortDataset(aligned), training[here], views).z["protein"].numpy()
        x_ND = z_ND - z_ND.mean(axis=0)
        map_DK = np.linalg.solve(x_ND.T @ x_ND + 0.1 * np.eye(x_ND.shape[1]), x_ND.T @ components_NK)
        return 1 - float(((components_NK - x_ND @ map_DK) ** 2).sum() / (components_NK**2).sum())

    assert told(begun) > told(few) + 0.1


def test_nobody_but_training_records_has_a_part(begun, aligned, cohort, training):
    class Spoilt(Aligned):
        def read_omics(self, name, rows):
            values, observed, damaged = super().read_omics(name, rows)
            values[~np.isin(rows, training)] = 1e6
            return values, observed, damaged

    again = make_model(aligned)
    torch.manual_seed(1)
    initialise(
        again, Spoilt(aligned.cohort, aligned.preprocessing, aligned.positions), training, batch_size=16, factors=16
    )
    state = begun.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
