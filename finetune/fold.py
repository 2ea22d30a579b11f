"""One fold of a run: every method learns on its training patients and predicts its test patients, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from finetune.base_model import BaseModel, Pretrain, base_model, untrained
from finetune.config import OURS, FinetuneConfig
from finetune.methods.adapt import adapt
from finetune.methods.covariates import covariates_width
from finetune.methods.linear import write_linear
from finetune.methods.modes import AdaptConfig, leaving_blind
from finetune.methods.network import Beginnings, NetworkMethod
from finetune.resuming import is_done, seal
from finetune.splits import Fold
from finetune.study import Study
from foundation.files.whole import replacing
from foundation.hub import model_folder

FINAL = "all"
"""The fold whose training patients are everybody."""

LINEAR = "linear baselines"


@dataclass(frozen=True)
class Method:
    """Something that learns on every fold.

    Attributes:
        name: For tables.
        adapt: How the network is adapted; None for the linear baselines.
        labels: Training patients that it may learn from; None for all.
    """

    name: str
    adapt: AdaptConfig | None = None
    labels: int | None = None

    @property
    def folder(self) -> str:
        """Name of its folder in that of a fold."""
        few = "" if self.labels is None else f" {self.labels} labels"
        return f"{self.name}{few}".replace(" ", "-")


def methods_of(config: FinetuneConfig, fold: Fold) -> list[Method]:
    """What is to be done for a fold."""
    ours = Method(OURS, config.adapt)
    if fold.name == FINAL:
        return [ours]
    networks = [Method(name, adapt) for name, adapt in config.methods().items()]
    few = [
        Method(method.name, method.adapt, labels)
        for labels in config.labels
        for method in [*networks, Method(LINEAR)]
        if labels < len(fold.train)
    ]
    return [*networks, Method(LINEAR), *few]


def run_fold(study: Study, fold: Fold, folder: Path, pretrain: Pretrain | None, done: Callable[[], None]) -> None:
    """Do what is not yet done of a fold.

    Args:
        study: Of the run.
        fold: Of the study, or `FINAL`.
        folder: Of the fold; each method's part appears in it when it is whole.
        pretrain: For `pretrain: per_fold`.
        done: Called after each method.
    """
    waiting = [method for method in methods_of(study.config, fold) if not is_done(folder / method.folder)]
    base: BaseModel | None = None
    beginnings: Beginnings = {}
    for method in waiting:
        few = study.few(fold, method.labels)
        with replacing(folder / method.folder) as partial:
            if method.adapt is None:
                write_linear(study, few, partial)
            else:
                base = base or base_model(study, fold, folder, pretrain)
                ours = method.name == OURS and method.labels is None
                network = NetworkMethod(study, method.name, method.adapt, method.labels, base, beginnings)
                network.write(few, partial, subsets=list(study.subsets()) if ours else [], keep=ours)
            seal(partial)
        done()


def summary_of(study: Study, fold: Fold) -> str:
    """What will be trained of the network, part by part.

    Raises:
        ConfigError: An adapter would be on nothing.
    """
    network = study.config.to_be_built()
    if network is None:
        assert isinstance(study.config.pretrain, Path)
        model, _ = model_folder.read(study.config.pretrain)
    else:
        patients = study.cohort.patients.astype(str)
        learned_from = np.flatnonzero(~np.isin(patients, patients[fold.test]))
        model = untrained(study, network, learned_from if study.config.pretraining else fold.train).model
    features = {name: len(modality.features) for spec in model.specs for name, modality in spec.omics.items()}
    width = model.config.width + covariates_width(features, study.config.covariates)
    heads = nn.ModuleDict({name: task.head(width) for name, task in study.tasks(fold.train).items()})
    settings = leaving_blind(study.config.adapt, model, study.modalities)
    return adapt(model, settings, heads, seed=study.config.seed).summary()
