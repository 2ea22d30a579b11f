"""How unlike training patients somebody is: told where known faults are seen, the same however records are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.uncertainty import novelty as module
from finetune.uncertainty.novelty import FAR, Novelty
from foundation.data.alignment import align
from foundation.data.batch import Batch
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing

GENES, PATIENTS = 60, 300


def omics(values="continuous", unit="log2(TPM + 1)"):
    count = [f"G{n}" for n in range(GENES)]
    return OmicsScaling(
        features=count, center=[5.0] * GENES, scale=[1.0] * GENES, clip=10, minimum_overlap=0.5, patients=1,
        values=values, unit=unit,
    )  # fmt: skip


def image():
    return ImageScaling(channels=["t1", "flair"], mean=[0.3] * 2, std=[0.2] * 2, patients=[1, 1], shape=[16, 16, 16])


def batch_of(patients=PATIENTS, seed=0):
    """RNA of genes that differ in level and in spread, a head brighter on one side; a fifth lacks each."""
    random = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)
    level, loading = 2 * fixed.standard_normal(GENES), fixed.standard_normal((3, GENES))
    x = level + random.standard_normal((patients, 3)) @ loading + 0.3 * random.standard_normal((patients, GENES))
    axes = np.meshgrid(*[np.linspace(-1, 1, 16)] * 3, indexing="ij")
    head = (sum(axis**2 for axis in axes) < 0.8) * (1 + 0.5 * axes[0])
    scans = head * random.uniform(0.8, 1.2, (patients, 2, 1, 1, 1)) + 0.05 * random.standard_normal(
        (patients, 2, 16, 16, 16)
    )
    here, channels = random.random(patients) < 0.8, random.random((patients, 2)) < 0.8
    observed = np.repeat(here[:, None], GENES, axis=1) & (random.random((patients, GENES)) < 0.95)
    rows = torch.arange(patients)
    return Batch(
        modalities=("mri", "rna"),
        patients=[str(n) for n in range(patients)],
        records=[str(n) for n in range(patients)],
        rows=rows,
        epochs=torch.zeros_like(rows),
        present_BM=torch.from_numpy(np.stack([channels.any(axis=1), here], axis=1)),
        images={"mri": torch.from_numpy(scans).float() * torch.from_numpy(channels)[:, :, None, None, None]},
        channels={"mri": torch.from_numpy(channels)},
        omics={"rna": torch.from_numpy(np.where(observed, x, 0)).float()},
        observed={"rna": torch.from_numpy(observed)},
        endpoints={},
        sites=[],
        groups=[],
    )


class Data:
    """In place of a dataset: a batch in memory."""

    def __init__(self, batch):
        self.batch = batch

    def __getitems__(self, key):
        return self.batch.part(int(key.rows[0]), int(key.rows[-1]) + 1)


@pytest.fixture
def learned(monkeypatch):
    batch = batch_of()
    monkeypatch.setattr(module, "sample", lambda cohort, rows, most: rows)
    monkeypatch.setattr(module, "CohortDataset", lambda aligned, rows: Data(batch))

    class Aligned:
        preprocessing = Preprocessing(cohort="c", patients=1, records=1, modalities={"mri": image(), "rna": omics()})
        cohort = None

    return Novelty.learn(Aligned(), np.arange(PATIENTS))


def test_faults_are_seen_in_genes_and_scans(learned):
    assert learned.validity.keys() == {"mri/t1", "mri/flair", "rna"}
    for unit, validity in learned.validity.items():
        assert validity.shown and min(validity.auroc.values()) > 0.99, unit
        assert validity.flagged["none"] < 0.03
    assert learned.validity["rna"].auroc.keys() == {"features in another order", "no logarithm taken"}
    assert learned.validity["mri/t1"].auroc.keys() == {"another organ", "reversed intensities", "noise"}


def test_new_patients_are_near_and_faulty_ones_far(learned):
    new = batch_of(seed=1)
    near = learned(new)
    for unit, distance_B in near.items():
        known = ~torch.isnan(distance_B)
        assert (distance_B[known] > FAR).float().mean() < 0.03, unit
        assert (distance_B[known] > 1).float().mean() < 0.08 and 0.2 < distance_B[known].median() < 0.7, unit
    new.omics["rna"] = new.omics["rna"].flip(1) * new.observed["rna"]
    far = learned(new)["rna"]
    assert (far[~torch.isnan(far)] > FAR).float().mean() > 0.95


def test_who_has_nothing_has_no_score(learned):
    new = batch_of(seed=1)
    found = learned(new)
    torch.testing.assert_close(torch.isnan(found["rna"]), ~new.observed["rna"].any(dim=1))
    torch.testing.assert_close(torch.isnan(found["mri/flair"]), ~new.channels["mri"][:, 1])


def test_what_was_not_measured_is_not_looked_at(learned):
    """Garbage in its place changes nothing; who lacks every other gene is somewhat less known, and hardly ever far."""
    new = batch_of(seed=1)
    before = learned(new)["rna"]
    new.omics["rna"] = torch.where(new.observed["rna"], new.omics["rna"], torch.tensor(99.0))
    torch.testing.assert_close(learned(new)["rna"], before, equal_nan=True)
    new.observed["rna"][:, ::2] = False
    few = learned(new)["rna"]
    assert (few[~torch.isnan(few)] > FAR).float().mean() < 0.1


def test_the_score_of_a_patient_does_not_depend_on_others(learned):
    new = batch_of(seed=1)
    whole, alone = learned(new), [learned(new.part(n, n + 1)) for n in range(5)]
    for unit in whole:
        torch.testing.assert_close(whole[unit][:5], torch.cat([one[unit] for one in alone]), equal_nan=True)


def test_what_was_learned_is_the_same_after_it_was_stored(learned):
    other, new = Novelty(learned.preprocessing), batch_of(seed=1)
    other.restore(learned.state(), {unit: one.document() for unit, one in learned.validity.items()})
    first, second = learned(new), other(new)
    assert first.keys() == second.keys()
    for unit in first:
        assert torch.equal(first[unit].nan_to_num(), second[unit].nan_to_num())


def test_a_score_that_misses_a_fault_is_not_shown(learned):
    learned.validity["rna"].auroc["another fault"] = 0.7
    assert "rna" not in learned(batch_of(seed=1))


def test_of_few_patients_nothing_is_said(cohort, workplace):
    aligned = align(Preprocessing.read(workplace / "model"), cohort)
    assert not Novelty.learn(aligned, np.arange(30)).validity
