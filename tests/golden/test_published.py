"""Folders that earlier versions published predict the same today, of cohorts that those versions prepared.

Other processors and versions of torch round otherwise: numbers may differ in the fifth digit, and nothing else may.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import chiasma
from finetune.predictor import Predictor
from foundation.cohort.store import PreparedCohort
from foundation.hub.published import Published

FOLDERS = sorted((Path(__file__).parent / "published").iterdir())
SAID: dict[str, Callable[[Path, PreparedCohort], pd.DataFrame]] = {
    "predictions": lambda folder, cohort: chiasma.load(folder).predict(cohort),
    "embeddings": lambda folder, cohort: chiasma.load(folder).embed(cohort),
    "adapted": lambda folder, cohort: Predictor.read(folder).predict(cohort),
}


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Of an embedding, a row for each of its numbers."""
    return table.explode("embedding").astype({"embedding": float}) if "embedding" in table else table


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_says_what_it_said(folder, said):
    Published.verify(folder / "model")
    expected = comparable(pd.read_parquet(folder / f"{said}.parquet"))
    found = comparable(SAID[said](folder / "model", PreparedCohort(folder / "cohort")))
    assert len(expected)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=2e-5, atol=2e-5)
