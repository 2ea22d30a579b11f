"""What the assays measure follows the biology that the truth names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from foundation.simulation import assays
from foundation.simulation.biology import ARMS, causal_genes, draw_biology
from foundation.simulation.latent import LATENT, draw_patient
from foundation.simulation.sites import SITES

PATIENTS = 300


@pytest.fixture(scope="module")
def biology():
    return draw_biology(2)


@pytest.fixture(scope="module")
def patients():
    return [draw_patient(2, index) for index in range(PATIENTS)]


def test_a_gene_moves_by_its_causal_weight(biology, patients):
    tpm_NF = np.array([assays.rna(2, biology, patient, "01A") for patient in patients])
    assert (tpm_NF >= 0).all() and (tpm_NF == 0).any()
    latent_ND = np.array([patient.latent for patient in patients])
    slope_DF = np.linalg.lstsq(
        np.column_stack([latent_ND, np.ones(PATIENTS)]), np.log2(np.maximum(tpm_NF, 0.5)), rcond=None
    )[0]
    weights = np.zeros((len(biology.genes), len(LATENT)))
    for gene, assay, dimension, weight in causal_genes(biology):
        if assay == "rna":
            weights[biology.genes.index(gene), LATENT.index(dimension)] = weight
    abundant = biology.base > 4
    assert np.abs(slope_DF[:-1].T[abundant] - weights[abundant]).mean() < 0.05
    assert np.abs(slope_DF[:-1].T[abundant] - weights[abundant]).max() < 0.4


def test_sites_shift_genes(biology):
    patient = draw_patient(2, 0)
    at = [assays.rna(2, biology, dataclasses.replace(patient, site=site), "01A") for site in SITES[:2]]
    both = (at[0] > 0) & (at[1] > 0)
    shift = biology.site_shift[1] - biology.site_shift[0]
    np.testing.assert_allclose(np.log2(at[1][both] / at[0][both]), shift[both], atol=1e-9)


def test_a_normal_shows_nothing_of_the_latent_and_a_second_vial_shows_it(biology, patients):
    latent = np.array([patient.value("side") for patient in patients])
    genes = (biology.pathway_of == 0) & (biology.base > 4)

    def correlation(sample):
        level = np.log2([assays.rna(2, biology, patient, sample)[genes] + 1 for patient in patients])
        return np.corrcoef(level @ biology.loading[genes], latent)[0, 1]

    assert correlation("01B") > 0.85
    assert 0.3 < correlation("02A") < correlation("01A")
    assert abs(correlation("11A")) < 0.2


def test_drivers_are_hit_by_their_log_odds(biology, patients):
    hit_NF = np.zeros((PATIENTS, len(biology.genes)), dtype=bool)
    for row, patient in enumerate(patients):
        for hit in assays.mutations(2, biology, patient):
            hit_NF[row, hit.gene] = True
            assert not (biology.drivers[hit.gene].any() and hit.variant == "Silent")
    latent_ND = np.array([patient.latent for patient in patients])
    for gene, dimension in np.argwhere(biology.drivers != 0):
        log_odds = biology.mutability[gene] + biology.drivers[gene] @ latent_ND.T
        expected = 1 / (1 + np.exp(-log_odds))
        assert abs(hit_NF[:, gene].mean() - expected.mean()) < 4 * 0.5 / np.sqrt(PATIENTS)
        difference = latent_ND[hit_NF[:, gene], dimension].mean() - latent_ND[~hit_NF[:, gene], dimension].mean()
        assert difference * biology.drivers[gene, dimension] > 0


def test_protein_follows_its_gene(biology, patients):
    level_NF = np.array([assays.protein(2, biology, patient) for patient in patients])
    assert 0.02 < np.isnan(level_NF).mean() < 0.06
    latent_ND = np.array([patient.latent for patient in patients])
    for place, gene in enumerate(biology.proteins):
        weights = biology.loading[gene] * biology.activity[biology.pathway_of[gene]]
        if np.abs(weights).sum() > 0.4:
            seen = ~np.isnan(level_NF[:, place])
            assert np.corrcoef(latent_ND[seen] @ weights, level_NF[seen, place])[0, 1] > 0.4


def test_arms_are_gained_and_lost_as_the_latent_leans(biology, patients):
    mean_NA = np.zeros((PATIENTS, len(ARMS)))
    for row, patient in enumerate(patients):
        for chromosome, start, end, probes, mean in assays.segments(2, biology, patient, normal=False):
            centromere = assays.CHROMOSOMES[chromosome].centromere
            arm = ARMS.index(f"{chromosome}{'p' if end <= centromere else 'q'}")
            mean_NA[row, arm] += mean * (end - start)
            assert probes >= 1 and 1 <= start < end <= assays.CHROMOSOMES[chromosome].length
    latent_ND = np.array([patient.latent for patient in patients])
    for arm, dimension in np.argwhere(biology.arms != 0):
        correlation = np.corrcoef(latent_ND[:, dimension], mean_NA[:, arm])[0, 1]
        assert correlation * np.sign(biology.arms[arm, dimension]) > 0.4


def test_two_pathways_have_nothing_to_do_with_the_latent(biology):
    assert (~biology.activity.any(axis=1)).sum() == 2
    causal = {gene for gene, *_ in causal_genes(biology)}
    unrelated = {biology.genes[gene] for gene in np.flatnonzero(biology.pathway_of >= 10)}
    assert unrelated and not unrelated & causal
