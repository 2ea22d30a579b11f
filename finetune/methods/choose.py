"""How a network learns on a fold: heads initialised; learning rate, rank, dropout and epochs chosen on inner folds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.config import FROZEN_PROBE, FitConfig
from finetune.methods.adapt import adapt
from finetune.methods.beginning import Beginning
from finetune.methods.fit import Trainee, fit
from finetune.methods.heads import Head, RidgeFit
from finetune.methods.held_out import HeldOut
from finetune.methods.modes import AdaptConfig, Frozen, Lora, Scratch
from finetune.methods.penalties import FIRST
from finetune.methods.reading import Reading
from finetune.methods.training_views import TrainingViews
from finetune.predictor import Predictor
from finetune.splits import Fold
from finetune.study import Study
from foundation.data.alignment import Aligned
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import FUSED

SMOOTHED = 3
"""Epochs whose mean counts, because a few patients make one epoch jump."""

HARDLY_READ, WHILE_TRAINED = 3.0, 0.01
"""Above the first, the penalty of the fused embedding becomes the second while the model is trained: through heads that
hardly read it, the model could not learn what it does not show yet."""


@dataclass(frozen=True)
class Choice:
    """What training is done with.

    Attributes:
        learning_rate: None where only heads are trained.
        rank, dropout: Of LoRA; None without it.
        penalties: Task to block to the ridge penalty of its head; infinite where it is not read.
        taught_by: Tasks that the model learns from; heads of others follow.
        epochs: After the heads.
        cv_log_likelihood: Of held-out patients on inner folds; optimistic, because the choice was made by it.
    """

    learning_rate: float | None
    rank: int | None
    dropout: float | None
    penalties: Mapping[str, Mapping[str, float]]
    taught_by: tuple[str, ...] = ()
    epochs: int = 0
    cv_log_likelihood: float = float("nan")

    def document(self) -> dict[str, Any]:
        """For metrics.json; penalties are told by block."""
        return {name: value for name, value in asdict(self).items() if name != "penalties"}


@dataclass(frozen=True)
class Learned:
    """What came of learning on a fold.

    Attributes:
        trainee: The trained model.
        choice: What it was trained with.
        steps: What to log of the training.
        held_out: What models that learned alike, each without an inner fold's patients, say of them.
    """

    trainee: Trainee
    choice: Choice
    steps: list[dict[str, Any]]
    held_out: HeldOut


@dataclass(frozen=True)
class Learning:
    """One method on one fold: whatever learns, learns here.

    Attributes:
        study: Of the run.
        base: The model before it is adapted, on its device.
        aligned: The cohort as that model and its heads read it.
        adapt: How it is adapted.
        seed: Of this fold.
        heads_only: Scaling of the covariates that the model does not know, if any.
    """

    study: Study
    base: MultimodalModel
    aligned: Aligned
    adapt: AdaptConfig
    seed: int
    heads_only: Preprocessing | None = None

    def read(self, fold: Fold) -> Reading:
        """What heads read, learned on the training records."""
        config = self.study.config
        return Reading.of(self.base, self.aligned, fold.train, config.reads, config.read_by_heads(), self.heads_only)

    def begin(self, fold: Fold, reading: Reading) -> Beginning:
        """Embed the training records with the model as it is, and choose the penalties of heads."""
        unadapted = self.adapt if isinstance(self.adapt, Scratch) else Frozen()
        model = adapt(self.base, unadapted, nn.ModuleDict(), seed=self.seed, reading=reading)
        plain = CohortDataset(self.aligned, fold.train)
        views = TrainingViews.of_model(model, plain, self.data(fold.train), fold.train)
        return Beginning.of(self.study, reading, views, self.study.inner(fold))

    def learn(self, fold: Fold, beginning: Beginning, *, all_held_out: bool) -> Learned:
        """Choose on inner folds of the training rows, and train on all of them.

        Args:
            fold: Of the study.
            beginning: That `begin` gave for it.
            all_held_out: Whether what is said of held-out patients is wanted of all inner folds, or of those alone
                that training was tried on.
        """
        inner = list(enumerate(beginning.inner))
        # Heads alone are quick to fit, so that all inner folds choose their penalty; training is not.
        tried_on = inner[: self.study.config.search.inner_folds]
        options, epochs = list(self.options(beginning)), self.study.config.fit.epochs
        teachers = () if isinstance(self.adapt, Frozen) else self._teachers(options[0], beginning, tried_on[0], epochs)
        options, epochs = [replace(option, taught_by=teachers) for option in options], epochs if teachers else 0
        tried = [self._try(option, beginning, tried_on, epochs) for option in options]
        gains = [self._gains(one.values) for one in tried]
        best, at = max(
            ((number, at) for number, gains_E in enumerate(gains) for at in range(len(gains_E))),
            key=lambda p: (gains[p[0]][p[1]], -p[1]),
        )
        reached = sum(self.study.weights[n] * values_KE[:, at].mean() for n, values_KE in tried[best].values.items())
        choice = replace(options[best], epochs=int(at), cv_log_likelihood=float(reached))
        held_out = [of_epoch[at] for of_epoch in tried[best].held_out]
        rest = inner[len(held_out) :] if all_held_out else []
        held_out += [self._hold_out(choice, beginning, number, one) for number, one in rest]
        trainee, steps = self._train(choice, fold.train, beginning)
        return Learned(trainee, choice, steps, HeldOut.join(held_out))

    def _teachers(self, option: Choice, beginning: Beginning, inner: tuple[int, Fold], epochs: int) -> tuple[str, ...]:
        """Of several tasks those that gain on an inner fold where the model learns from them alone; a single task.

        One of which nothing can be learned would spoil an adapter that it shares with others. Of several options that
        are searched the first is tried: this asks whether there is anything to learn, not how best to.
        """
        names = tuple(self.study.weights)
        if len(names) == 1:
            return names
        tried = {name: self._try(replace(option, taught_by=(name,)), beginning, [inner], epochs) for name in names}
        curves = {name: smoothed(one.values[name].mean(axis=0)) for name, one in tried.items()}
        return tuple(name for name, curve_E in curves.items() if curve_E.argmax() > 0)

    def _gains(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """[E + 1] what each number of epochs gains over heads alone, in the mean of inner folds, summed over tasks.

        Where the frozen probe is there to be kept, a task that training makes worse takes nothing from the others.
        """
        curves = {name: smoothed(values_KE.mean(axis=0)) for name, values_KE in values.items()}
        least = 0.0 if FROZEN_PROBE in self.study.config.members() else -np.inf
        gains = [self.study.weights[name] * np.maximum(curve - curve[0], least) for name, curve in curves.items()]
        return np.sum(gains, axis=0)

    def _train(self, choice: Choice, train: np.ndarray, beginning: Beginning) -> tuple[Trainee, list[dict[str, Any]]]:
        """A model trained as was chosen, and what to log of that."""
        trainee, steps = self.make(choice, train, beginning, trained=choice.epochs > 0), []
        if choice.epochs:
            steps = fit(trainee, self.data(train), self.fit_config(choice), epochs=choice.epochs, seed=self.seed)
        trainee.train(False)
        return trainee, steps

    def make(self, choice: Choice, train: np.ndarray, beginning: Beginning, *, trained: bool) -> Trainee:
        """An adapted model before training, its heads fitted to the model as it is; whether it will be trained."""
        reading = beginning.reading
        tasks = {name: task.to(self._device) for name, task in self.study.tasks(train).items()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            heads = nn.ModuleDict({name: Head(task, reading.blocks()) for name, task in tasks.items()})
        adapted = adapt(self.base, self._adapt_config(choice), heads, seed=self.seed, reading=reading)
        views = beginning.views.of(train)
        for name, task in tasks.items():
            loss = self.study.loss_of(task, views.rows, self._device)
            penalties = choice.penalties[name]
            if trained and name in choice.taught_by and penalties[FUSED] > HARDLY_READ:
                penalties = {**penalties, FUSED: WHILE_TRAINED}
            RidgeFit(adapted.heads[name], views.x_LE, loss).under(penalties)  # type: ignore[arg-type]
        return Trainee(adapted, tasks, self.study.weights, choice.taught_by)

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

    def options(self, beginning: Beginning) -> Iterator[Choice]:
        """What inner folds choose from, before the number of epochs."""
        penalties = {name: found.of_block for name, found in beginning.penalties.items()}
        search, given = self.study.config.search, self.study.config.fit.optimiser.learning_rate
        rates = [None] if isinstance(self.adapt, Frozen) else search.learning_rate or [given]
        ranks, dropouts = [None], [None]
        if isinstance(self.adapt, Lora):
            ranks, dropouts = search.rank or [self.adapt.rank], search.dropout or [self.adapt.dropout]
        for rate, rank, dropout in itertools.product(rates, ranks, dropouts):
            yield Choice(rate, rank, dropout, dict(penalties), tuple(self.study.weights))

    def _adapt_config(self, choice: Choice) -> AdaptConfig:
        if not isinstance(self.adapt, Lora):
            return self.adapt
        scale = self.adapt.alpha / self.adapt.rank
        # What is added keeps its scale, whatever the rank.
        changed = {"rank": choice.rank, "alpha": scale * choice.rank, "dropout": choice.dropout}  # type: ignore[operator]
        return self.adapt.model_copy(update=changed)

    def fit_config(self, choice: Choice) -> FitConfig:
        """How a model is trained by a choice."""
        config = self.study.config.fit
        optimiser = config.optimiser.model_copy(update={"learning_rate": choice.learning_rate})
        return config.model_copy(update={"optimiser": optimiser})

    def _try(self, choice: Choice, beginning: Beginning, inner: Sequence[tuple[int, Fold]], epochs: int) -> _Tried:
        """What training by a choice comes to on inner folds, after each number of epochs up to the last.

        It is given up, and spared the others, where it gains nothing on each of the first.
        """
        held_out: list[list[HeldOut]] = []
        values: list[dict[str, np.ndarray]] = []
        for number, fold in inner:
            if len(values) == FIRST and not any(self._gains(one).argmax() for one in values):
                epochs = 0
            held_out.append(self._after_each_epoch(choice, beginning, number, fold, epochs))
            values.append(self._values(fold, held_out[-1]))
        of_task = {n: np.concatenate([one[n][:, : epochs + 1] for one in values]) for n in self.study.weights}
        return _Tried(of_task, [found[: epochs + 1] for found in held_out])

    def _after_each_epoch(
        self, choice: Choice, beginning: Beginning, number: int, fold: Fold, epochs: int
    ) -> list[HeldOut]:
        """What a model says of an inner fold's patients, before training and after each epoch."""
        untrained = self.make(choice, fold.train, beginning, trained=False)
        found = [self._of_heads(untrained, beginning.views, number, fold)]
        if epochs:
            trainee = self.make(choice, fold.train, beginning, trained=True)
            fit(
                trainee,
                self.data(fold.train),
                self.fit_config(choice),
                epochs=epochs,
                seed=self.seed,
                after_epoch=lambda _: found.append(self._of_model(trainee, number, fold)),
            )
        return found

    def _hold_out(self, choice: Choice, beginning: Beginning, number: int, fold: Fold) -> HeldOut:
        """What a model that learned by a choice without an inner fold's patients says of them."""
        if not choice.epochs:
            untrained = self.make(choice, fold.train, beginning, trained=False)
            return self._of_heads(untrained, beginning.views, number, fold)
        return self._of_model(self._train(choice, fold.train, beginning)[0], number, fold)

    def _of_heads(self, trainee: Trainee, views: TrainingViews, number: int, fold: Fold) -> HeldOut:
        """Of held-out patients, before any training: their embeddings are known."""
        test = views.of(self.study.one_each(fold.test), whole=True)
        with torch.no_grad():
            return HeldOut.of(test.rows, number, {n: head(test.x_LE) for n, head in trainee.adapted.heads.items()})

    def _of_model(self, trainee: Trainee, number: int, fold: Fold) -> HeldOut:
        """Of held-out patients."""
        test = self.study.one_each(fold.test)
        return HeldOut.of(test, number, self.predictor(trainee).outputs(self.aligned, test))

    def _values(self, fold: Fold, held_out: Sequence[HeldOut]) -> dict[str, np.ndarray]:
        """Task to the log-likelihood [1, E + 1] of an inner fold's patients by each of several outputs."""
        tasks, rows = self.study.tasks(fold.train), held_out[0].rows
        losses = {n: self.study.loss_of(task.to(self._device), rows, self._device) for n, task in tasks.items()}

        def value(name: str, outputs: Tensor) -> float:
            return -float(losses[name](outputs.float().to(self._device)))

        return {name: np.array([[value(name, found.outputs[name]) for found in held_out]]) for name in losses}


@dataclass(frozen=True)
class _Tried:
    """What an option came to.

    Attributes:
        values: Task to [K, E + 1], log-likelihood of an inner fold's held-out patients after a number of epochs.
        held_out: Of each inner fold, after each number of epochs.
    """

    values: dict[str, np.ndarray]
    held_out: list[list[HeldOut]]


def smoothed(values_E: np.ndarray) -> np.ndarray:
    """[E + 1] means over neighbouring epochs; of heads alone, the first, the value itself."""
    trained_E = values_E[1:]
    if len(trained_E) < SMOOTHED:
        return values_E
    kernel = np.ones(SMOOTHED)
    means_E = np.convolve(trained_E, kernel, "same") / np.convolve(np.ones_like(trained_E), kernel, "same")
    return np.append(values_E[0], means_E)
