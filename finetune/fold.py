"""One fold of a run: every method learns on its training patients and predicts its test patients, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from finetune.base_model import BaseModel, Pretrain, base_model, untrained
from finetune.config import FROM_SCRATCH, KEPT, OURS, UNPRETRAINED, FinetuneConfig
from finetune.methods.adapt import adapt
from finetune.methods.choose import Learning
from finetune.methods.found import FINDING, write_found
from finetune.methods.heads import Head
from finetune.methods.kept import write_kept
from finetune.methods.linear import readable, write_linear
from finetune.methods.modes import AdaptConfig, leaving_blind
from finetune.methods.network import HELD_OUT, Beginnings, NetworkMethod
from finetune.predictor import MODEL
from finetune.resuming import is_done, seal
from finetune.splits import Fold
from finetune.study import Study
from foundation.data.alignment import align
from foundation.files.whole import replacing
from foundation.model import model_folder

FINAL = "all"
"""The fold whose training patients are everybody."""

LINEAR = "linear baselines"


@dataclass(frozen=True)
class Method:
    """Something that learns on every fold.

    Attributes:
        name: For tables.
        adapt: How the network is adapted; None for the linear baselines and for what is kept.
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
    networks = [Method(name, adapt) for name, adapt in config.methods().items()]
    if fold.name == FINAL:
        members = config.members()
        return [*(method for method in networks if method.name in members), Method(LINEAR), Method(KEPT)]
    few = [
        Method(method.name, method.adapt, labels)
        for labels in config.labels
        for method in [*networks, Method(LINEAR)]
        if labels < len(fold.train)
    ]
    without = [Method(UNPRETRAINED)] if FROM_SCRATCH in config.methods() else []
    finding = [Method(FINDING)] if config.find else []
    return [*finding, *networks, Method(LINEAR), Method(KEPT), *without, *few]


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
    if waiting:
        study = study.finding(fold)
    for method in waiting:
        few = study.few(fold, method.labels)
        with replacing(folder / method.folder) as partial:
            if method.name == FINDING:
                write_found(study, fold, partial)
            elif method.name == LINEAR:
                write_linear(study, few, partial, keep=fold.name == FINAL)
            elif method.name in (KEPT, UNPRETRAINED):
                said = _said(study, folder, pretrained=method.name == KEPT)
                final = folder / Method(OURS).folder / MODEL if fold.name == FINAL else None
                write_kept(study, fold, said, partial, model=final)
            else:
                assert method.adapt is not None
                base = base or base_model(study, fold, folder, pretrain)
                ours = method.name == OURS and method.labels is None
                network = NetworkMethod(study, method.name, method.adapt, method.labels, base, beginnings)
                subsets = list(study.subsets()) if ours else []
                network.write(few, partial, subsets=subsets, keep=ours or fold.name == FINAL)
            seal(partial)
        done()


def _said(study: Study, folder: Path, *, pretrained: bool) -> dict[str, Path]:
    """What may be kept of a fold: its methods that read nothing but what this run may see, to their files."""
    linear = {name: folder / Method(LINEAR).folder / f"{name}.safetensors" for name in readable(study)}
    networks = study.config.members(pretrained=pretrained)
    return linear | {name: folder / Method(name).folder / HELD_OUT for name in networks}


def summary_of(study: Study, fold: Fold) -> str:
    """What towers took from weights of others, and what will be trained of the network, part by part.

    Raises:
        ConfigError: An adapter would be on nothing.
    """
    network = study.config.to_be_built()
    if network is None:
        folder = study.config.model_folder()
        assert folder is not None
        model, preprocessing = model_folder.read(folder)
    else:
        patients = study.cohort.patients.astype(str)
        learned_from = np.flatnonzero(~np.isin(patients, patients[fold.test]))
        built = untrained(study, network, learned_from if study.config.pretraining else fold.train)
        model, preprocessing = built.model, built.preprocessing
    settings = leaving_blind(study.config.adapt, model, study.modalities)
    heads_only = study.fit_heads_only(fold)
    aligned = align(preprocessing.joined(heads_only), study.cohort).only(study.modalities)
    reading = Learning(study, model, aligned, settings, study.config.seed, heads_only).read(fold)
    heads = nn.ModuleDict({name: Head(task, reading.blocks()) for name, task in study.tasks(fold.train).items()})
    taken = [f"{name} tower: {tower.weights.summary()}" for name, tower in model.towers.items() if tower.weights]  # type: ignore[union-attr]
    return "\n".join([*taken, adapt(model, settings, heads, seed=study.config.seed, reading=reading).summary()])
