"""What inner folds of the training patients choose: ridge penalties of heads, learning rate, rank, dropout, epochs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.methods.adapt import AdaptConfig, Frozen, Lora, adapt
from finetune.methods.covariates import covariate_values, covariates_width
from finetune.methods.fit import Trainee, fit
from finetune.methods.heads import PENALTIES, Head, init_head
from finetune.splits import Fold
from finetune.study import Study
from finetune.tasks.base import Task
from foundation.data.alignment import Aligned
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import BatchKey, OnePass
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import FUSED, View

LOOKS = 3
"""At each training record before training: one at all that it has, and others under modality dropout."""

MOST_LOOKS = 6000
"""Of all records together, unless two of each are more; a line through so many has no use for more."""

BATCH = 64

SMOOTHED = 3
"""Epochs whose mean counts, because a few patients make one epoch jump."""


@dataclass(frozen=True)
class Choice:
    """What training is done with.

    Attributes:
        learning_rate: None where only heads are trained.
        rank, dropout: Of LoRA; None without it.
        penalties: Task to the ridge penalty that its head starts with.
        epochs: After the heads.
        cv_log_likelihood: Log-likelihood on inner folds, which is optimistic, because it was chosen by.
    """

    learning_rate: float | None
    rank: int | None
    dropout: float | None
    penalties: dict[str, float]
    epochs: int = 0
    cv_log_likelihood: float = float("nan")

    def document(self) -> dict[str, Any]:
        """For metrics.json."""
        return asdict(self)


@dataclass(frozen=True)
class Looks:
    """Embeddings of training records by the model as it is, several times each, with modality dropout.

    Attributes:
        rows: [L] record of each look.
        whole: [L] bool, nothing was dropped.
        x_LE: What heads read: its embedding, with the covariates behind it.
    """

    rows: np.ndarray
    whole: np.ndarray
    x_LE: Tensor

    def of(self, rows: np.ndarray, *, whole: bool = False) -> Looks:
        """Those of some records; with `whole`, only the one of each at all that it has."""
        here = np.isin(self.rows, rows) & (self.whole | (not whole))
        return Looks(self.rows[here], self.whole[here], self.x_LE[torch.from_numpy(here).to(self.x_LE.device)])


@dataclass(frozen=True)
class Ready:
    """What the start of training is made from; methods that start from the same model share it.

    Attributes:
        looks: At the training records.
        inner: Folds of these, to choose on.
        penalties: Task to the ridge penalty that its head starts with.
    """

    looks: Looks
    inner: list[Fold]
    penalties: dict[str, float]


@dataclass(frozen=True)
class Learning:
    """One method of one fold: whatever learns, learns here.

    Attributes:
        study: Of the run.
        base: The model before it is adapted.
        aligned: The cohort as that model reads it.
        adapt: How it is adapted.
        seed: Of this fold.
    """

    study: Study
    base: MultimodalModel
    aligned: Aligned
    adapt: AdaptConfig
    seed: int

    def ready(self, fold: Fold) -> Ready:
        """Look at the training records with the model as it is, and choose the penalties of heads."""
        looks, inner = self._look(fold.train), self.study.inner(fold)
        return Ready(looks, inner, self._choose_penalties(looks, inner))

    def learn(self, fold: Fold, ready: Ready) -> tuple[Trainee, Choice, list[dict[str, Any]]]:
        """Choose on inner folds of the training rows, and train on all of them; with what to log of that."""
        looks = ready.looks
        # Heads alone are quick to fit, so that all inner folds choose their penalty; training is not.
        inner = ready.inner[: self.study.config.search.inner_folds]
        options = list(self._options(ready.penalties))
        epochs = 0 if isinstance(self.adapt, Frozen) else self.study.config.fit.epochs
        curves = [self._curve(option, looks, inner, epochs) for option in options]
        best, at = max(
            itertools.product(range(len(options)), range(epochs + 1)), key=lambda p: (curves[p[0]][p[1]], -p[1])
        )
        choice = replace(options[best], epochs=int(at), cv_log_likelihood=float(curves[best][at]))
        trainee = self.start(choice, fold.train, looks)
        rows = []
        if choice.epochs:
            rows = fit(trainee, self.data(fold.train), self._fit_config(choice), epochs=choice.epochs, seed=self.seed)
        trainee.train(False)
        return trainee, choice, rows

    def start(self, choice: Choice, train: np.ndarray, looks: Looks) -> Trainee:
        """An adapted model before training, its heads fitted to the model as it is."""
        tasks = self.study.tasks(train)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            heads = nn.ModuleDict({name: self._head(task) for name, task in tasks.items()})
        covariates = self.study.config.covariates
        adapted = adapt(self.base, self._adapt_config(choice), heads, seed=self.seed, covariates=covariates)
        looks = looks.of(train)
        for name, task in tasks.items():
            self._init_head(adapted.heads[name], task, looks, choice.penalties[name])  # type: ignore[arg-type]
        return Trainee(adapted, tasks, self.study.weights(), choice.penalties)

    def data(self, rows: np.ndarray) -> CohortDataset:
        """Training records as they are learned from."""
        config = self.study.config
        return CohortDataset(
            self.aligned, rows, seed=self.seed, dropout=config.dropout, augmentation=config.fit.augmentation
        )

    def _head(self, task: Task) -> Head:
        features = {name: len(names) for name, names, _ in self.base.config.omics}
        return Head(task, self.base.config.width, covariates_width(features, self.study.config.covariates))

    def _init_head(self, head: Head, task: Task, looks: Looks, penalty: float) -> None:
        rows = looks.rows
        init_head(head, task, looks.x_LE, self.study.labels(rows), self.study.groups(rows).tolist(), penalty)

    def _options(self, penalties: Mapping[str, float]) -> Iterator[Choice]:
        search, given = self.study.config.search, self.study.config.fit.optimiser.learning_rate
        rates = [None] if isinstance(self.adapt, Frozen) else search.learning_rate or [given]
        ranks, dropouts = [None], [None]
        if isinstance(self.adapt, Lora):
            ranks, dropouts = search.rank or [self.adapt.rank], search.dropout or [self.adapt.dropout]
        for rate, rank, dropout in itertools.product(rates, ranks, dropouts):
            yield Choice(rate, rank, dropout, dict(penalties))

    def _adapt_config(self, choice: Choice) -> AdaptConfig:
        if not isinstance(self.adapt, Lora):
            return self.adapt
        scale = self.adapt.alpha / self.adapt.rank
        # What is added keeps its scale, whatever the rank.
        changed = {"rank": choice.rank, "alpha": scale * choice.rank, "dropout": choice.dropout}  # type: ignore[operator]
        return self.adapt.model_copy(update=changed)

    def _fit_config(self, choice: Choice) -> Any:
        config = self.study.config.fit
        optimiser = config.optimiser.model_copy(update={"learning_rate": choice.learning_rate})
        return config.model_copy(update={"optimiser": optimiser})

    def _look(self, rows: np.ndarray) -> Looks:
        """Embed training records, as they are and under draws of modality dropout."""
        model = self.base
        if self.adapt.mode == "scratch":
            model = adapt(model, self.adapt, nn.ModuleDict(), seed=self.seed).model
        drops = bool(self.study.config.dropout.default or self.study.config.dropout.modalities)
        draws = max(1, min(LOOKS, MOST_LOOKS // len(rows)) - 1) if drops else 0
        covariates = self.study.config.covariates
        parts = [_embed(model, CohortDataset(self.aligned, rows), rows, 0, covariates)]
        parts += [_embed(model, self.data(rows), rows, epoch, covariates) for epoch in range(draws)]
        return Looks(np.tile(rows, 1 + draws), np.arange(len(rows) * (1 + draws)) < len(rows), torch.cat(parts))

    def _choose_penalties(self, looks: Looks, inner: list[Fold]) -> dict[str, float]:
        """For each task the penalty under which held-out patients are most likely; of equals the more cautious."""
        values = np.zeros((len(self.study.config.tasks), len(PENALTIES), len(inner)))
        for k, fold in enumerate(inner):
            tasks = self.study.tasks(fold.train)
            train, test = looks.of(fold.train), looks.of(self.study.one_each(fold.test), whole=True)
            for t, task in enumerate(tasks.values()):
                head = self._head(task).to(looks.x_LE.device)
                for p, penalty in enumerate(PENALTIES):
                    self._init_head(head, task, train, penalty)
                    with torch.no_grad():
                        values[t, p, k] = self._log_likelihood(task, head(test.x_LE), test.rows)
        mean_TP = values.mean(axis=2)
        return {name: PENALTIES[int(row.argmax())] for name, row in zip(self.study.weights(), mean_TP, strict=True)}

    def _log_likelihood(self, task: Task, outputs: Tensor, rows: np.ndarray) -> float:
        """How likely what became of held-out records was; a rank statistic of so few would be noise."""
        task.eval()
        return -float(task.loss(outputs, self.study.labels(rows), self.study.groups(rows).tolist()))

    def _curve(self, choice: Choice, looks: Looks, inner: list[Fold], epochs: int) -> np.ndarray:
        """[epochs + 1] log-likelihood on the inner folds after each number of epochs."""
        values_KE = np.zeros((len(inner), epochs + 1))
        for k, fold in enumerate(inner):
            trainee = self.start(choice, fold.train, looks)
            look = self._looker(trainee, fold, values_KE[k])
            look(0)
            if epochs:
                fit(trainee, self.data(fold.train), self._fit_config(choice), epochs=epochs, seed=self.seed, look=look)
        mean_E = values_KE.mean(axis=0)
        if epochs < SMOOTHED:
            return mean_E
        kernel = np.ones(SMOOTHED)
        return np.convolve(mean_E, kernel, "same") / np.convolve(np.ones_like(mean_E), kernel, "same")

    def _looker(self, trainee: Trainee, fold: Fold, values_E: np.ndarray) -> Callable[[int], None]:
        test = self.study.one_each(fold.test)
        # Not those that are trained: they remember patients of earlier batches.
        tasks = self.study.tasks(fold.train)

        def look(epoch: int) -> None:
            trainee.train(False)
            outputs = outputs_of(trainee, self.aligned, test)
            with torch.no_grad():
                values = [
                    trainee.weights[name] * self._log_likelihood(task, outputs[name], test)
                    for name, task in tasks.items()
                ]
            values_E[epoch] = sum(values)

        return look


@torch.no_grad()
def _embed(
    model: MultimodalModel, data: CohortDataset, rows: np.ndarray, epoch: int, covariates: Sequence[str]
) -> Tensor:
    """[N, E] what heads read of records, by the draws of an epoch."""
    device = next(model.parameters()).device
    parts = np.split(rows, range(BATCH, len(rows), BATCH))
    keys = [BatchKey(part, np.full(len(part), epoch, dtype=np.int64)) for part in parts]
    found = []
    model.eval()
    for batch in load(data, keys):  # type: ignore[arg-type]
        batch = batch.to(device)
        everything_BM = torch.ones_like(batch.present_BM)
        z_BD = model(batch, View(FUSED, everything_BM)).z_BD.float()
        found.append(torch.cat([z_BD, covariate_values(batch, covariates, everything_BM)], dim=1))
    return torch.cat(found)


@torch.no_grad()
def outputs_of(trainee: Trainee, aligned: Aligned, rows: np.ndarray) -> dict[str, Tensor]:
    """Outputs of every head for some records, with all that they have."""
    device = next(trainee.adapted.parameters()).device
    parts = [trainee.adapted(batch.to(device)) for batch in load(CohortDataset(aligned, rows), OnePass(rows, BATCH))]
    return {name: torch.cat([part[name] for part in parts]) for name in trainee.tasks}
