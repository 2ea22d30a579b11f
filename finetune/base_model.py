"""The model that a fold adapts: read from a folder, pretrained without the test patients, or built untrained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from finetune.config import Network
from finetune.leakage import refuse_seen
from finetune.splits import Fold
from finetune.study import Study
from foundation import licences
from foundation.data.preprocessing import Preprocessing
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError
from foundation.hub.address import is_address
from foundation.model import model_folder
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients
from foundation.training.parallel.base import usable_device

Pretrain = Callable[[Path, list[str]], Path]
"""A pretraining YAML and changes to it, to the model folder that it made; goes on where it was stopped."""


@dataclass(frozen=True)
class BaseModel:
    """A model before it is adapted.

    Attributes:
        model: On the device that it is trained on, in evaluation.
        preprocessing: What it has learned of the values that it reads.
        seen: Whom it was pretrained on; None where nobody knows.
    """

    model: MultimodalModel
    preprocessing: Preprocessing
    seen: SeenPatients | None


def base_model(study: Study, fold: Fold, folder: Path, pretrain: Pretrain | None) -> BaseModel:
    """The model to adapt in a fold.

    Args:
        study: Of the run.
        fold: Of the study.
        folder: Of the fold, for what is pretrained for it.
        pretrain: For `pretrain: per_fold`.

    Raises:
        ConfigError: There is nothing to pretrain with.
        DataError: Test patients were pretrained on.
        CheckpointError: The model folder is damaged.
    """
    config = study.config
    if config.network is not None:
        return untrained(study, config.network, fold.train)
    if (given := config.model_folder()) is not None:
        base = _read(given)
        base.model.config.base = _origin(config.pretrain, given)
        return base
    if pretrain is None or config.pretraining is None:
        raise ConfigError(
            "`per_fold` pretrains for each fold, and no function that pretrains was given",
            where="pretrain",
            fix="use the command `chiasma finetune`, or pass pretrain=launch.pretrained.pretrain_model",
        )
    model = folder / "pretrained" / "model"
    if not (model / "config.json").is_file():
        model = _pretrain(study, fold, folder, pretrain)
    base = _read(model)
    if len(fold.test):
        refuse_seen(base.seen, study.cohort.patients[fold.test])
    return base


def untrained(study: Study, network: Network, rows: np.ndarray) -> BaseModel:
    """A network with random weights that reads what is learned of some rows."""
    preprocessing = fit_preprocessing(study.cohort, rows, network.preprocessing)
    settings = MultimodalConfig.of(preprocessing.described(), network.towers, network.fusion, network.width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(study.config.seed)
        model = MultimodalModel(settings).eval()
    return BaseModel(model.to(usable_device()), preprocessing, SeenPatients.of([]))  # type: ignore[arg-type]


def _read(folder: Path) -> BaseModel:
    model, preprocessing = model_folder.read(folder)
    return BaseModel(model.to(usable_device()), preprocessing, SeenPatients.read(folder))  # type: ignore[arg-type]


def _origin(place: Path | str, folder: Path) -> dict[str, str]:
    """What a model folder is called, and its licence: that of the card in it, or of the published folder around it."""
    name = folder.parent.name if folder.name == "model" else folder.name
    if is_address(place):
        name = str(place)
    return {"name": name, "licence": licences.beside(folder / "config.json")}


def _pretrain(study: Study, fold: Fold, folder: Path, pretrain: Pretrain) -> Path:
    """Pretrain with the test patients of a fold held out."""
    config = study.config
    assert config.pretraining is not None
    changes = [
        # Nobody reads what they say of one fold's model.
        "probes=false",
        *config.pretraining_changes,
        f"cohort={config.cohort}",
        f"out={folder / 'pretrained'}",
        f"seed={config.seed}",
    ]
    tested = np.unique(study.cohort.patients[fold.test].astype(str))
    if len(tested):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test_patients.txt").write_text("\n".join(tested) + "\n", encoding="utf-8")
        changes.append(f"held_out={{patients: '{folder / 'test_patients.txt'}'}}")
    with _quiet(folder):
        return pretrain(config.pretraining, changes)


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """What pretraining prints goes to a file: several folds at once would talk over each other."""
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "pretraining.log").open("a", encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield
