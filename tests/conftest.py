"""What every test gets: no network, one thread per process, the same random examples, a simulated cohort, real ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One simulated cohort of 60 patients for the whole test run: ``source/`` as simulated, ``cohort/`` as prepared.

    All processes of the run share it, so nobody writes to it: who changes or damages a part copies that part first.
    """
    from filelock import FileLock

    from foundation.cohort.prepare import prepare
    from foundation.files.whole import replacing
    from foundation.progress import Silent
    from foundation.simulation.simulate import simulate

    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist every process has a folder of its own inside that of the run.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "simulated"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with replacing(folder) as partial:
                simulate(partial / "source", patients=60, seed=3, progress=lambda done, total: None)
                prepare(partial / "source" / "cohort.yaml", out=partial / "cohort", workers=1, progress=Silent())
    before = _state(folder)
    yield folder
    assert _state(folder) == before, "a test wrote to the cohort that all tests share"


def _state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cohorts: shared/data beside the checkout, or $CHIASMA_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CHIASMA_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real cohorts in {folder}; set CHIASMA_DATA to the folder that holds them")
    return folder
