"""Slices of brain tumours: every slice is there with its kind and its block, and folds keep blocks together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.config import FinetuneConfig
from finetune.splits import Folds, Records
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.progress import Silent

CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def slices(real_data: Path) -> pd.DataFrame:
    return pd.read_csv(real_data / "brain_t1gd" / "slices.tsv", sep="\t").set_index("slice").sort_index()


@pytest.fixture(scope="module")
def cohort(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    out = tmp_path_factory.mktemp("brain")
    recipe = CONFIGS / "cohorts" / "brain-t1gd.yaml"
    prepare(recipe, out=out, root=real_data / "brain_t1gd", workers=1, progress=Silent())
    return PreparedCohort(out)


def test_every_slice_is_there(cohort: PreparedCohort, slices: pd.DataFrame) -> None:
    assert cohort.patients.astype(str).tolist() == slices.index.tolist()
    assert cohort.sites.astype(str).tolist() == slices["block"].tolist()
    classes = np.array(sorted(slices["tumour"].unique()))
    assert (classes[cohort.endpoint("kind")["code"]] == slices["tumour"]).all()
    assert cohort.present_NM.all()


def test_folds_keep_blocks_together_and_cut_few_patients(cohort: PreparedCohort) -> None:
    """Blocks that follow each other share the patient at their border: numbers 3 and 7 are kept aside."""
    config = load_config(FinetuneConfig, CONFIGS / "finetune" / "brain-t1gd-kind.yaml")
    kinds_N, blocks_N = cohort.endpoint("kind")["code"], cohort.sites.astype(str)
    folds = Folds.make(config.splits, Records(cohort.patients, cohort.sites, kinds_N), config.seed)
    tested = [set(blocks_N[fold.test]) for fold in folds.folds]
    assert [len(blocks) for blocks in tested] == [2, 2, 2, 2] and len(set.union(*tested)) == 8
    borders = [("B0", "B1"), ("B1", "B2"), ("B4", "B5"), ("B5", "B6"), ("B8", "B9")]
    assert sum(not any({*border} <= blocks for blocks in tested) for border in borders) == 2
    for fold in folds.folds:
        assert np.bincount(kinds_N[fold.test]).min() > 130
        for inner in folds.inner(fold):
            assert not set(blocks_N[inner.train]) & set(blocks_N[inner.test])
