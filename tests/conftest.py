"""What every test gets: no network, one thread per process, the same random examples, and the real cohorts if any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before any library that reads them is imported: conftest.py comes first, in every worker process too.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="disabled",
)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

settings.register_profile("chiasma", deadline=None, derandomize=True, database=None)
settings.load_profile("chiasma")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cohorts: shared/data beside the checkout, or $CHIASMA_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CHIASMA_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real cohorts in {folder}; set CHIASMA_DATA to the folder that holds them")
    return folder
