"""Kept predictors: of all kinds of methods on the small cohort, and of a network that reads scans."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import finetune.tasks
from finetune.config import OURS
from finetune.explain.attribution import Explainer
from finetune.fold import FINAL, LINEAR, Method
from finetune.kept_predictor import DOCUMENT, Document, KeptPredictor, gather
from finetune.methods.adapt import adapt
from finetune.methods.heads import Head
from finetune.methods.linear import MODELS
from finetune.methods.modes import Frozen
from finetune.methods.reading import ALL, Reading
from finetune.predictor import Predictor
from finetune.run import finetune
from finetune.tasks.base import tasks
from finetune.uncertainty.novelty import Novelty
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import TowerConfig, towers

MODALITIES = ("mri", "rna", "mutation", "clinical")
"""That the network reads."""

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


@pytest.fixture(scope="session")
def seeing(simulated: Path) -> PreparedCohort:
    return PreparedCohort(simulated / "cohort")


@pytest.fixture(scope="session")
def predictor(seeing: PreparedCohort) -> KeptPredictor:
    """A network with random weights, alone."""
    return network_alone(seeing, towers["vit2d"].tiny())


@pytest.fixture(scope="session")
def in_3d(seeing: PreparedCohort) -> KeptPredictor:
    """The same with a tower of three dimensions."""
    return network_alone(seeing, towers["vit3d"].tiny())


@pytest.fixture(scope="session")
def joined(seeing: PreparedCohort) -> KeptPredictor:
    """The same, whose scores are of the fused embedding above all, which does not add up what towers say."""
    kept = network_alone(seeing, towers["vit2d"].tiny())
    adapted = kept.networks[OURS].adapted
    torch.manual_seed(1)
    for weight in adapted.model.fusion.parameters():
        nn.init.normal_(weight, std=10)
    [head] = adapted.heads.values()
    [fused] = [columns for block, columns in head.columns() if block.name == "fused"]
    for weight in head.weights():
        nn.init.normal_(weight.data[..., fused], std=10)
    return kept


@pytest.fixture(scope="session")
def convolutional(seeing: PreparedCohort) -> KeptPredictor:
    """The same with a tower of convolutions."""
    return network_alone(seeing, towers["vit2d"].Config.model_validate({"model": "resnet10t", "max_slices": 4}))


def network_alone(seeing: PreparedCohort, tower: TowerConfig) -> KeptPredictor:
    """A stack of one network with random weights."""
    aligned = align(
        fit_preprocessing(seeing, np.arange(len(seeing)), PreprocessingConfig(modalities=[*MODALITIES])), seeing
    )
    torch.manual_seed(0)
    omics = towers["omics_transformer"].Config(tokenizer={"tokenizer": "chunk"}, width=8, depth=1, heads=2)
    parts = {"mri": tower, "omics": omics}
    config = MultimodalConfig.of(aligned.preprocessing.described(), parts, fusions["gated_mean"].tiny(), 4)
    model = MultimodalModel(config).eval()
    reading = Reading.of(model, aligned, np.arange(40), ALL, [])
    task = tasks.build(tasks["subtype"].Config(endpoint="subtype"), seeing.manifest.endpoints)
    head = Head(task, reading.blocks())
    for weight in head.weights():
        nn.init.normal_(weight, std=0.1)
    adapted = adapt(model, Frozen(), nn.ModuleDict({"subtype": head}), reading=reading).eval()
    network = Predictor(adapted, {"subtype": task}, aligned.preprocessing, MODALITIES)
    parts = {"subtype": {OURS: 1.0}}, {"subtype": task}, {OURS: network}, {}, MODALITIES, {"subtype": []}
    return KeptPredictor(*parts, Novelty(aligned.preprocessing))
