"""One fold of a run: every method learns on its training patients and predicts its test patients, once for all time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from finetune.config import OURS, FinetuneConfig, Network
from finetune.methods import adapter
from finetune.methods.adapt import AdaptConfig, Adapted, adapt, leaving_blind
from finetune.methods.choose import BATCH, Learning, Ready, outputs_of
from finetune.methods.covariates import covariates_width
from finetune.methods.fit import Trainee
from finetune.methods.linear import write_linear
from finetune.resuming import is_done, seal
from finetune.splits import Fold, refuse_seen
from finetune.study import EVERYTHING, Study
from foundation.data.alignment import Aligned, align
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.data.preprocessing import Preprocessing
from foundation.data.sampler import OnePass
from foundation.errors import ConfigError
from foundation.hub import model_folder
from foundation.hub.seen_patients import SeenPatients
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.view import View
from foundation.randomness import draw

Pretrain = Callable[[Path, list[str]], Path]
"""A pretraining YAML and changes to it, to the model folder that it made; goes on where it was stopped."""

Readies = dict[tuple[bool, int | None], Ready]
"""From scratch or not, and how many labels, to what methods of that kind start from."""

FINAL = "all"
"""The fold whose training patients are everybody."""

PREDICTIONS, CHOICE, STEPS = "predictions.parquet", "choice.json", "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
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


LINEAR = "linear baselines"


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
    base: tuple[MultimodalModel, Preprocessing] | None = None
    readies: Readies = {}
    for method in waiting:
        with model_folder.replacing(folder / method.folder) as partial:
            if method.adapt is None:
                write_linear(study, study.few(fold, method.labels), partial)
            else:
                base = base or _base(study, fold, folder, pretrain)
                _network(study, study.few(fold, method.labels), method, base, readies, partial)
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
        model, _ = _untrained(study, network, learned_from if study.config.pretraining else fold.train)
    features = {name: len(names) for name, names, _ in model.config.omics}
    width = model.config.width + covariates_width(features, study.config.covariates)
    heads = torch.nn.ModuleDict({name: task.head(width) for name, task in study.tasks(fold.train).items()})
    settings = leaving_blind(study.config.adapt, model, study.modalities)
    return adapt(model, settings, heads, seed=study.config.seed).summary()


def _base(study: Study, fold: Fold, folder: Path, pretrain: Pretrain | None) -> tuple[MultimodalModel, Preprocessing]:
    """The model to adapt and its preprocessing; for `per_fold`, pretrained without the test patients."""
    config = study.config
    if config.network is not None:
        return _untrained(study, config.network, fold.train)
    if config.pretrain != "per_fold":
        assert isinstance(config.pretrain, Path)
        return model_folder.read(config.pretrain)
    if pretrain is None or config.pretraining is None:
        raise ConfigError("nothing here can pretrain", where="pretrain", fix="use the command `chiasma finetune`")
    model = folder / "pretrained" / "model"
    if not (model / "config.json").is_file():
        tested = np.unique(study.cohort.patients[fold.test].astype(str))
        changes = [
            *config.pretraining_changes,
            f"cohort={config.cohort}",
            f"out={folder / 'pretrained'}",
            f"seed={config.seed}",
        ]
        if len(tested):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "test_patients.txt").write_text("\n".join(tested) + "\n", encoding="utf-8")
            changes.append(f"held_out={{patients: '{folder / 'test_patients.txt'}'}}")
        with _quiet(folder):
            model = pretrain(config.pretraining, changes)
    if len(fold.test):
        refuse_seen(SeenPatients.read(model), study.cohort.patients[fold.test])
    return model_folder.read(model)


def _untrained(study: Study, network: Network, rows: np.ndarray) -> tuple[MultimodalModel, Preprocessing]:
    """A network with random weights that reads what is learned of some rows."""
    preprocessing = Preprocessing.fit(study.cohort, rows, network.preprocessing)
    settings = MultimodalConfig.of(preprocessing, network.towers, network.fusion, network.width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(study.config.seed)
        return MultimodalModel(settings).eval(), preprocessing


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """What pretraining prints goes to a file: several folds at once would talk over each other."""
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "pretraining.log").open("a", encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def _network(
    study: Study,
    fold: Fold,
    method: Method,
    base: tuple[MultimodalModel, Preprocessing],
    readies: Readies,
    folder: Path,
) -> None:
    """Adapt, predict, write."""
    model, preprocessing = base
    assert method.adapt is not None
    aligned = study.read(align(preprocessing, study.cohort))
    seed = int(draw(study.config.seed, "seed of a fold", [fold.name], [0], 1)[0, 0] * 2**31)
    torch.manual_seed(seed)
    learning = Learning(study, model, aligned, leaving_blind(method.adapt, model, study.modalities), seed)
    start = (method.adapt.mode == "scratch", method.labels)
    if start not in readies:
        readies[start] = learning.ready(fold)
    trainee, choice, rows = learning.learn(fold, readies[start])
    _finish(study, trainee, aligned, fold)
    about = {"fold": fold.name, "method": method.name, "labels": method.labels}
    lines = [json.dumps({**about, **row}) + "\n" for row in rows]
    (folder / STEPS).write_text("".join(lines), encoding="utf-8")
    document = {**about, "train": len(fold.train), **choice.document()}
    document["adaptation"] = trainee.adapted.summary()
    (folder / CHOICE).write_text(json.dumps(document, indent=2), encoding="utf-8")
    if method.name == OURS and method.labels is None:
        adapter.write(folder / "adapter", trainee.adapted)
        torch_tasks = {name: task.state_dict() for name, task in trainee.tasks.items()}
        _write_buffers(folder / "adapter" / "tasks.safetensors", torch_tasks)
    if fold.name == FINAL:
        model_folder.write(folder / "model", model, preprocessing, "The model that the adapter beside it stands on.\n")
        return
    test = study.one_each(fold.test)
    subsets = list(study.subsets()) if method.name == OURS and method.labels is None else []
    predict(study, trainee, aligned, test, subsets).to_parquet(folder / PREDICTIONS, index=False)


def _write_buffers(path: Path, tasks: dict[str, dict[str, torch.Tensor]]) -> None:
    from safetensors.torch import save_file

    save_file({f"{task}.{name}": t.contiguous() for task, state in tasks.items() for name, t in state.items()}, path)


def _finish(study: Study, trainee: Trainee, aligned: Aligned, fold: Fold) -> None:
    rows = study.one_each(fold.train)
    outputs = outputs_of(trainee, aligned, rows)
    for name, task in trainee.tasks.items():
        task.finish(outputs[name], study.truth(rows), study.groups(rows))


@torch.no_grad()
def predict(
    study: Study, trainee: Trainee, aligned: Aligned, rows: np.ndarray, subsets: list[tuple[str, ...]]
) -> pd.DataFrame:
    """Predictions of records: with all that each has, and of those who have it with each subset alone.

    A tower looks once at each part of its modalities, and all subsets are joined from that.

    Returns:
        Columns ``row``, ``seen`` (a subset, or `EVERYTHING`), and those of each task behind its name.
    """
    frames = []
    for batch in load(CohortDataset(aligned, rows), OnePass(rows, BATCH)):
        batch = batch.to(next(trainee.adapted.parameters()).device)
        here = batch.rows.cpu().numpy()
        frames.append(_frame(study, trainee, here, EVERYTHING, trainee.adapted(batch)))
        looks: dict[tuple[str, tuple[str, ...]], tuple[torch.Tensor, torch.Tensor]] = {}
        for subset in subsets:
            has = study.has(here, subset)
            if has.any():
                there = torch.from_numpy(has).to(batch.rows.device)
                outputs = _of_subset(trainee.adapted, batch, subset, looks)
                shown = {name: output[there] for name, output in outputs.items()}
                frames.append(_frame(study, trainee, here[has], "+".join(subset), shown))
    return pd.concat(frames, ignore_index=True)


def _of_subset(adapted: Adapted, batch: Batch, subset: tuple[str, ...], looks: dict) -> dict[str, torch.Tensor]:
    """Outputs of heads where only a subset is seen; `looks` keeps what towers said of parts of it."""
    seen = []
    for site in adapted.model.sites:
        part = tuple(name for name in site.modalities if name in subset)
        if (site.name, part) not in looks:
            one = adapted.model(batch, View(site.name, _only(batch, part)))
            looks[site.name, part] = (one.z_BD, one.present_B)
        seen.append(looks[site.name, part])
    z_BMD, present_BM = (torch.stack(parts, dim=1) for parts in zip(*seen, strict=True))
    return adapted.outputs(adapted.model.fusion(z_BMD, present_BM), batch, _only(batch, subset))


def _only(batch: Batch, modalities: tuple[str, ...]) -> torch.Tensor:
    """Bool [B, M] that keeps some modalities."""
    keep_BM = torch.zeros_like(batch.present_BM)
    keep_BM[:, [batch.modalities.index(name) for name in modalities]] = True
    return keep_BM


def _frame(study: Study, trainee: Trainee, rows: np.ndarray, seen: str, outputs: dict) -> pd.DataFrame:
    columns = {"row": rows, "seen": np.full(len(rows), seen, dtype=object)}
    for name, task in trainee.tasks.items():
        predicted = task.predict(outputs[name], study.groups(rows))
        columns |= {f"{name}/{column}": values for column, values in predicted.items()}
    return pd.DataFrame(columns)
