"""Predictions of a folder in a process of its own, for `run.py`: python -m finetune.publish.check FOLDER COHORT OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from foundation.cohort.store import PreparedCohort

RECORDS = 32
"""Records that are compared."""


def told(folder: Path, cohort: PreparedCohort) -> pd.DataFrame:
    """What a published folder, or the run that it comes from, says of some records."""
    from finetune.config import KEPT
    from finetune.predict import Run
    from finetune.predictor import MODEL

    rows = np.arange(min(len(cohort), RECORDS))
    if (folder / KEPT).is_dir():
        return Run.open(folder).table(cohort, rows)
    from foundation.data.alignment import align
    from foundation.data.dataset import CohortDataset
    from foundation.model import model_folder
    from foundation.model.embedding import embed
    from foundation.model.view import FUSED, View

    model, preprocessing = model_folder.read(folder / MODEL)
    z_ND = embed(model, CohortDataset(align(preprocessing, cohort)), rows, {FUSED: View(FUSED)}).z[FUSED]
    return pd.DataFrame({f"z{d}": z_N for d, z_N in enumerate(z_ND.numpy(force=True).T)})


if __name__ == "__main__":
    told(Path(sys.argv[1]), PreparedCohort(sys.argv[2])).to_parquet(sys.argv[3], index=False)
