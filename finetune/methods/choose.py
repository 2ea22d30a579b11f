"""How a network learns on a fold: heads initialised; penalties, learning rate, rank, epochs chosen on inner folds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.methods.adapt import adapt
from finetune.methods.covariates import covariates_width
from finetune.methods.fit import Trainee, fit
from finetune.methods.heads import PENALTIES, Head, init_head
from finetune.methods.modes import AdaptConfig, Frozen, Lora, Scratch
from finetune.methods.training_views import TrainingViews
from finetune.predictor import Predictor
from finetune.splits import Fold
from finetune.study import Study
from finetune.tasks.base import Task
from foundation.data.alignment import Aligned
from foundation.data.dataset import CohortDataset
from foundation.model.multimodal import MultimodalModel

SMOOTHED = 3
"""Epochs whose mean counts, because a few patients make one epoch jump."""


@dataclass(frozen=True)
class Choice:
    """What training is done with.

    Attributes:
        learning_rate: None where only heads are trained.
        rank, dropout: Of LoRA; None without it.
        penalties: Task to the ridge penalty that its head begins with.
        epochs: After the heads.
        cv_log_likelihood: Of held-out patients on inner folds; optimistic, because the choice was made by it.
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
class Beginning:
    """What training begins with; methods that begin with the same model share it.

    Attributes:
        views: Of the training records.
        inner: Folds of these, to choose on.
        penalties: Task to the ridge penalty that its head begins with.
    """

    views: TrainingViews
    inner: list[Fold]
    penalties: dict[str, float]


@dataclass(frozen=True)
class Learning:
    """One method on one fold: whatever learns, learns here.

    Attributes:
        study: Of the run.
        base: The model before it is adapted, on its device.
        aligned: The cohort as that model reads it.
        adapt: How it is adapted.
        seed: Of this fold.
    """

    study: Study
    base: MultimodalModel
    aligned: Aligned
    adapt: AdaptConfig
    seed: int

    def begin(self, fold: Fold) -> Beginning:
        """Embed the training records with the model as it is, and choose the penalties of heads."""
        unadapted = self.adapt if isinstance(self.adapt, Scratch) else Frozen()
        covariates = self.study.config.covariates
        model = adapt(self.base, unadapted, nn.ModuleDict(), seed=self.seed, covariates=covariates)
        plain = CohortDataset(self.aligned, fold.train)
        views = TrainingViews.of_model(model, plain, self.data(fold.train), fold.train)
        inner = self.study.inner(fold)
        return Beginning(views, inner, self._choose_penalties(views, inner))

    def learn(self, fold: Fold, beginning: Beginning) -> tuple[Trainee, Choice, list[dict[str, Any]]]:
        """Choose on inner folds of the training rows, and train on all of them; with what to log of that."""
        views = beginning.views
        # Heads alone are quick to fit, so that all inner folds choose their penalty; training is not.
        inner = beginning.inner[: self.study.config.search.inner_folds]
        options = list(self._options(beginning.penalties))
        epochs = 0 if isinstance(self.adapt, Frozen) else self.study.config.fit.epochs
        curves = [self._curve(option, views, inner, epochs) for option in options]
        best, at = max(
            itertools.product(range(len(options)), range(epochs + 1)), key=lambda p: (curves[p[0]][p[1]], -p[1])
        )
        choice = replace(options[best], epochs=int(at), cv_log_likelihood=float(curves[best][at]))
        trainee = self.make(choice, fold.train, views)
        rows = []
        if choice.epochs:
            rows = fit(trainee, self.data(fold.train), self._fit_config(choice), epochs=choice.epochs, seed=self.seed)
        trainee.train(False)
        return trainee, choice, rows

    def make(self, choice: Choice, train: np.ndarray, views: TrainingViews) -> Trainee:
        """An adapted model before training, its heads fitted to the model as it is."""
        tasks = {name: task.to(self._device) for name, task in self.study.tasks(train).items()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            heads = nn.ModuleDict({name: self._head(task) for name, task in tasks.items()})
        covariates = self.study.config.covariates
        adapted = adapt(self.base, self._adapt_config(choice), heads, seed=self.seed, covariates=covariates)
        views = views.of(train)
        for name, task in tasks.items():
            self._init_head(adapted.heads[name], task, views, choice.penalties[name])  # type: ignore[arg-type]
        return Trainee(adapted, tasks, self.study.weights, choice.penalties)

    def data(self, rows: np.ndarray) -> CohortDataset:
        """Training records as they are learned from."""
        config = self.study.config
        return CohortDataset(
            self.aligned, rows, seed=self.seed, dropout=config.dropout, augmentation=config.fit.augmentation
        )

    def predictor(self, trainee: Trainee) -> Predictor:
        """What predicts with the model as it is trained so far."""
        return Predictor(trainee.adapted, trainee.tasks, self.aligned.preprocessing, self.study.modalities)

    @property
    def _device(self) -> torch.device:
        return next(self.base.parameters()).device

    def _head(self, task: Task) -> Head:
        features = {name: len(m.features) for spec in self.base.specs for name, m in spec.omics.items()}
        return Head(task, self.base.config.width, covariates_width(features, self.study.config.covariates))

    def _init_head(self, head: Head, task: Task, views: TrainingViews, penalty: float) -> None:
        labels, groups = self.study.labels(views.rows, self._device), self.study.groups(views.rows).tolist()
        init_head(head, task, views.x_LE, labels, groups, penalty)

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

    def _choose_penalties(self, views: TrainingViews, inner: list[Fold]) -> dict[str, float]:
        """For each task the penalty under which held-out patients are most likely; of equals the more cautious."""
        values = np.zeros((len(self.study.weights), len(PENALTIES), len(inner)))
        for k, fold in enumerate(inner):
            tasks = self.study.tasks(fold.train)
            train, test = views.of(fold.train), views.of(self.study.one_each(fold.test), whole=True)
            for t, task in enumerate(tasks.values()):
                head = self._head(task.to(self._device)).to(self._device)
                for p, penalty in enumerate(PENALTIES):
                    self._init_head(head, task, train, penalty)
                    with torch.no_grad():
                        values[t, p, k] = self._log_likelihood(task, head(test.x_LE), test.rows)
        mean_TP = values.mean(axis=2)
        return {name: PENALTIES[int(row.argmax())] for name, row in zip(self.study.weights, mean_TP, strict=True)}

    def _log_likelihood(self, task: Task, outputs: Tensor, rows: np.ndarray) -> float:
        """Of what became of held-out records; a rank statistic of so few would be noise."""
        task.eval()
        return -float(task.loss(outputs, self.study.labels(rows, self._device), self.study.groups(rows).tolist()))

    def _curve(self, choice: Choice, views: TrainingViews, inner: list[Fold], epochs: int) -> np.ndarray:
        """[epochs + 1] log-likelihood on the inner folds after each number of epochs."""
        values_KE = np.zeros((len(inner), epochs + 1))
        for k, fold in enumerate(inner):
            trainee = self.make(choice, fold.train, views)
            note = self._noter(trainee, fold, values_KE[k])
            note(0)
            if epochs:
                settings = self._fit_config(choice)
                fit(trainee, self.data(fold.train), settings, epochs=epochs, seed=self.seed, after_epoch=note)
        mean_E = values_KE.mean(axis=0)
        if epochs < SMOOTHED:
            return mean_E
        kernel = np.ones(SMOOTHED)
        return np.convolve(mean_E, kernel, "same") / np.convolve(np.ones_like(mean_E), kernel, "same")

    def _noter(self, trainee: Trainee, fold: Fold, values_E: np.ndarray) -> Callable[[int], None]:
        """Notes the log-likelihood of a fold's test patients, summed over tasks, after a number of epochs."""
        test = self.study.one_each(fold.test)
        # Not those that are trained: they remember patients of earlier batches.
        tasks = {name: task.to(self._device) for name, task in self.study.tasks(fold.train).items()}

        def note(epoch: int) -> None:
            outputs = self.predictor(trainee).outputs(self.aligned, test)
            with torch.no_grad():
                each = [
                    trainee.weights[name] * self._log_likelihood(task, outputs[name], test)
                    for name, task in tasks.items()
                ]
            values_E[epoch] = sum(each)

        return note
