"""A kept predictor of all kinds of methods, on the small cohort, and what explains it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from finetune.explain.attribution import Explainer
from finetune.fold import FINAL, LINEAR, Method
from finetune.kept_predictor import DOCUMENT, Document, KeptPredictor, gather
from finetune.methods.linear import MODELS
from finetune.run import finetune
from foundation.cohort.store import PreparedCohort

WEIGHTS = {
    "subtype": {"ours": 0.4, "frozen probe": 0.3, "clinical + omics": 0.5},
    "os": {"omics": 0.7, "ours": 0.2},
}


@pytest.fixture(scope="session")
def stack(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, as if networks and linear models had been chosen for both tasks."""
    folder = tmp_path_factory.mktemp("explain") / "run"
    changes = [f"out={folder}", "final=true", "compare=[frozen probe]", "fit.epochs=3", "reads=[towers,values]"]
    finetune(workplace / "config.yaml", changes)
    final = folder / "folds" / FINAL
    document = Document.model_validate_json((final / "kept" / DOCUMENT).read_bytes())
    document.model_copy(update={"weights": WEIGHTS}).write(final / "kept" / DOCUMENT)
    probe = {"frozen probe": final / "frozen-probe" / "adapter"}
    gather(folder, final / "kept", probe, final / Method(LINEAR).folder / MODELS)
    shutil.rmtree(folder / "folds")
    return folder


@pytest.fixture(scope="session")
def kept(stack: Path) -> KeptPredictor:
    return KeptPredictor.read(stack, torch.device("cpu"))


@pytest.fixture(scope="session")
def explainer(kept: KeptPredictor, cohort: PreparedCohort) -> Explainer:
    return Explainer.of(kept, cohort)
