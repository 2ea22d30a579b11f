"""What every test gets: no network, one thread per process, the same random examples, a simulated cohort, real ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.model_hub import TOKEN, Hub, hub_here, use

if TYPE_CHECKING:
    from foundation.cohort.store import PreparedCohort

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

LONGEST = "test_readme.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first: the process that took it last would work alone at the end."""
    items.sort(key=lambda item: item.path.name != LONGEST)


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


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    """A simulated cohort of 72 patients in which the tumour of every second who was scanned is drawn."""
    from foundation.cohort.prepare import prepare
    from foundation.cohort.store import PreparedCohort
    from foundation.progress import Silent
    from foundation.simulation.simulate import simulate

    folder = tmp_path_factory.mktemp("drawn")
    simulate(folder / "source", patients=72, seed=3, progress=lambda done, total: None, annotations=True)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    return PreparedCohort(folder / "cohort")


@pytest.fixture(scope="session")
def divided(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated cohort as three: ``pairs`` of 20 patients, ``scans`` and ``omics`` alone of 20 others each."""
    import pandas as pd

    from foundation.cohort.prepare import prepare
    from foundation.progress import Silent
    from foundation.yaml_text import dump, parse

    folder, source = tmp_path_factory.mktemp("divided"), simulated / "source"
    clinical = pd.read_csv(source / "clinical.tsv", sep="\t", dtype=str)
    patients = clinical["patient"].unique()
    kinds = {"pairs": ("image", "omics"), "scans": ("image",), "omics": ("omics",)}
    for number, (name, kept) in enumerate(kinds.items()):
        here = clinical["patient"].isin(patients[number::3])
        table = folder / f"{name}.tsv"
        clinical[here].to_csv(table, sep="\t", index=False)
        spec = parse((source / "cohort.yaml").read_text(encoding="utf-8"))
        spec |= {"name": name, "root": str(source), "quarantine": {"stop_above": 1.0}}
        spec["clinical"]["files"] = str(table)
        spec["modalities"] = {n: m for n, m in spec["modalities"].items() if m["kind"] in kept and n != "clinical"}
        (folder / f"{name}.yaml").write_text(dump(spec), encoding="utf-8")
        prepare(folder / f"{name}.yaml", out=folder / name, workers=1, progress=Silent())
    return folder


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A model hub on this machine, with a cache of its own and a token that it takes."""
    from huggingface_hub import constants

    from foundation.hub import calls

    with hub_here() as hub:
        use(monkeypatch, hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(calls, "WAITS", (0.01, 0.01))
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield hub
