"""Which records are a pair by themselves: both sides of a contrast with an image, or of any where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.modality import ImageModality, OmicsModality
from foundation.model.view import TowerSpec
from foundation.objectives.contrastive.pairs import find_pairs
from foundation.objectives.infonce import InfoNCE

MODALITIES = ("mri", "rna", "cnv", "protein")
PRESENT = np.array(
    [
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 1],
        [1, 0, 0, 1],
        [0, 1, 0, 1],
    ],
    dtype=bool,
)
GENE = OmicsModality(features=["A"], values="continuous")
MRI = TowerSpec("mri", {"mri": ImageModality(channels=["t1"], shape=[8, 8, 8])})
OMICS = TowerSpec("omics", {"rna": GENE, "cnv": GENE, "protein": GENE})
GENES, PROTEIN = TowerSpec("genes", {"rna": GENE, "cnv": GENE}), TowerSpec("protein", {"protein": GENE})


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([MRI, OMICS], [1, 0, 0, 0, 1, 0]),
        ([MRI, GENES, PROTEIN], [1, 0, 0, 0, 1, 0]),
        ([OMICS], [0, 0, 1, 0, 0, 1]),
        ([GENES, PROTEIN], [0, 0, 1, 0, 0, 1]),
    ],
)
def test_pairs_are_those_of_images_where_there_are_images(specs, expected):
    objective = InfoNCE(InfoNCE.tiny(), specs, {spec.name: 8 for spec in specs})
    assert objective.complete(PRESENT, MODALITIES).astype(int).tolist() == expected


def test_a_pair_alone_says_which_records_have_both_its_sides():
    by_name = {pair.name: pair for pair in find_pairs(InfoNCE.tiny(), [MRI, GENES, PROTEIN])}
    assert by_name["mri~protein"].complete(PRESENT, MODALITIES).tolist() == [False] * 4 + [True, False]
    assert by_name["genes~protein"].complete(PRESENT, MODALITIES).tolist() == [False] * 5 + [True]
    assert by_name["genes~genes"].complete(PRESENT, MODALITIES).tolist() == [False, False, True, False, False, False]
