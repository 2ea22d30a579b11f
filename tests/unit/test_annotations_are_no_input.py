"""Annotations are targets: other ones change nothing that a model or a linear method reads, and few files know them."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import Inputs
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.augment import Augmentation
from foundation.data.dataset import CohortDataset
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.scaling import fit_preprocessing
from tests.unit.data.test_annotations import drawn_cohort
from tests.unit.data.test_dataset import assert_same, key

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = np.arange(40)
READERS = {"annotations", "annotated", "annotated_NR", "kept_NR", "annotation_entry"}

MAY_KNOW = {
    "foundation/cohort",
    "foundation/data/batch.py",
    "foundation/data/dataset.py",
    "foundation/finding",
    "finetune/config.py",
    "finetune/kept_predictor.py",
    "finetune/methods/found.py",
    "finetune/results.py",
    "finetune/report/page.py",
    "launch/cohort_table.py",
}
"""Where annotations are prepared, read back, put into a batch beside its inputs, and told; and where regions are found
as they were drawn on others: tests/unit/finding holds that nobody's own drawing has a part in that."""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory) -> list[PreparedCohort]:
    """Equal but for their annotations; the last has none."""
    folder = tmp_path_factory.mktemp("cohorts")
    kinds = [(1, 0.6), (2, 0.6), (3, 1.0), (4, 0.0)]
    return [drawn_cohort(folder / str(seed), seed, share) for seed, share in kinds]


@settings(max_examples=20)
@given(rows=st.lists(st.integers(0, 39), min_size=1, max_size=6), epoch=st.integers(0, 9), seed=st.integers(0, 9))
def test_other_annotations_change_no_input_of_a_batch(cohorts, rows, epoch, seed):
    batches = []
    for cohort in cohorts:
        aligned = align(fit_preprocessing(cohort, ROWS), cohort)
        options = {"dropout": ModalityDropout(default=0.3), "augmentation": Augmentation(translate=1), "seed": seed}
        batches.append(CohortDataset(aligned, **options).__getitems__(key(rows, epoch)))
    for batch in batches:
        assert batch.annotations == batch.annotated == {}
        assert_same(batches[0], batch)


def test_other_annotations_change_nothing_that_preprocessing_and_linear_methods_learn(cohorts):
    first = fit_preprocessing(cohorts[0], ROWS)
    features = [ImageFeatures(cohort).read("mri", ROWS) for cohort in cohorts]
    inputs = [Inputs.learn(c, list(c.modalities), ImageFeatures(c), ROWS)[1] for c in cohorts]
    for number, cohort in enumerate(cohorts):
        assert fit_preprocessing(cohort, ROWS) == first
        np.testing.assert_array_equal(cohort.present_NM, cohorts[0].present_NM)
        np.testing.assert_array_equal(features[number][0], features[0][0])
        np.testing.assert_array_equal(inputs[number], inputs[0])


def read_of(path: Path) -> set[str]:
    """What a file reads of annotations."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in READERS:
            found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "annotation":
            found.add("annotation")
    return found


def test_no_other_file_reads_annotations():
    """Who builds on annotations as targets adds the file above, and sees to it that no input depends on them."""
    found = {}
    for room in ("foundation", "pretrain", "finetune", "launch"):
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            place = path.relative_to(REPOSITORY).as_posix()
            if not any(place == known or place.startswith(f"{known}/") for known in MAY_KNOW):
                found[place] = read_of(path)
    assert {place: names for place, names in found.items() if names} == {}
    assert "annotation" in read_of(REPOSITORY / "foundation" / "data" / "dataset.py")
