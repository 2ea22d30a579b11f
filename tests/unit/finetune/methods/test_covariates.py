"""What heads read beside the embedding: values where they are seen, zeros elsewhere, and which is which."""

from __future__ import annotations

import pytest
import torch

from finetune.methods.covariates import covariate_values, covariates_width
from foundation.data.batch import Batch
from foundation.model.view import FUSED, View

AGE_AND_STAGE = [[0.5, -1.0], [2.0, 0.0], [0.0, 3.0]]
MEASURED = [[True, True], [True, False], [False, True]]
SNPS = [[7.0], [0.0], [9.0]]
EVERYTHING = View(FUSED)


@pytest.fixture
def batch() -> Batch:
    """Three records; the second patient's stage and the third's age are not known, the second has a measured 0."""
    return Batch(
        modalities=("mri", "clinical", "snps"),
        patients=list("abc"),
        records=list("abc"),
        rows=torch.arange(3),
        epochs=torch.zeros(3, dtype=torch.int64),
        present_BM=torch.ones(3, 3, dtype=torch.bool),
        images={"mri": torch.zeros(3, 1, 2, 2)},
        channels={"mri": torch.ones(3, 1, dtype=torch.bool)},
        omics={"clinical": torch.tensor(AGE_AND_STAGE), "snps": torch.tensor(SNPS)},
        observed={"clinical": torch.tensor(MEASURED), "snps": torch.ones(3, 1, dtype=torch.bool)},
        endpoints={},
        sites=["", "", ""],
        groups=["", "", ""],
    )


def test_values_stand_before_what_was_seen_modality_by_modality_in_the_order_asked_for(batch):
    values = covariate_values(batch, ["snps", "clinical"], EVERYTHING)
    assert values.tolist() == [
        [7, 1, 0.5, -1, 1, 1],
        [0, 1, 2, 0, 1, 0],  # A measured zero is seen, an unknown stage is not.
        [9, 1, 0, 3, 0, 1],
    ]
    assert values.dtype == torch.float32


def test_what_is_hidden_of_one_record_reads_as_absent_and_nobody_else_changes(batch):
    whole = covariate_values(batch, ["clinical", "snps"], EVERYTHING)
    view = View(FUSED, keep={"clinical": torch.tensor([False, True, True])})
    hidden = covariate_values(batch, ["clinical", "snps"], view)
    assert hidden[0].tolist() == [0, 0, 0, 0, 7, 1]
    torch.testing.assert_close(hidden[1:], whole[1:], rtol=0, atol=0)


def test_a_modality_or_feature_that_a_view_does_not_show_reads_as_absent(batch):
    whole = covariate_values(batch, ["clinical", "snps"], EVERYTHING)
    alone = covariate_values(batch, ["clinical", "snps"], View(FUSED, ("snps",)))
    assert not alone[:, :4].any() and torch.equal(alone[:, 4:], whole[:, 4:])
    without_age = View(FUSED, hidden={"clinical": torch.tensor([[True, False]] * 3)})
    hidden = covariate_values(batch, ["clinical", "snps"], without_age)
    assert not hidden[:, [0, 2]].any() and torch.equal(hidden[:, [1, 3, 4, 5]], whole[:, [1, 3, 4, 5]])


def test_values_that_were_not_measured_never_come_through(batch):
    values = covariate_values(batch, ["clinical"], EVERYTHING)
    batch.omics["clinical"] = torch.where(batch.observed["clinical"], batch.omics["clinical"], 1e6)
    torch.testing.assert_close(covariate_values(batch, ["clinical"], EVERYTHING), values, rtol=0, atol=0)


def test_without_modalities_there_is_an_empty_column_block(batch):
    assert covariate_values(batch, [], EVERYTHING).shape == (3, 0)
    assert covariates_width({"clinical": 2, "snps": 1}, []) == 0


@pytest.mark.parametrize("names", [["clinical"], ["snps"], ["clinical", "snps"]])
def test_the_width_is_that_of_the_values(batch, names):
    values = covariate_values(batch, names, EVERYTHING)
    assert covariates_width({"clinical": 2, "snps": 1, "rna": 20_000}, names) == values.shape[1]
