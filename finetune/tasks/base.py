"""What a task is: a head on the fused embedding, its loss, what it predicts, and how that is measured and drawn."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from finetune.uncertainty.base import LEVEL, Uncertain
from foundation.collectives import sum_over_processes
from foundation.config import Config
from foundation.errors import ConfigError, nearest
from foundation.linear.learners import LEAST_PROBABILITY
from foundation.metrics.calibration import logistic_intercept, logistic_slope
from foundation.metrics.class_scores import calibration_error
from foundation.metrics.score import Score, of_rows
from foundation.registry import Registry
from foundation.report.page import Picture

tasks: Registry = Registry("task", "task")

Labels = Mapping[str, Mapping[str, Tensor]]
"""Endpoint to its parts [B], as a batch carries them."""

Truth = Mapping[str, Mapping[str, np.ndarray]]
"""Endpoint to its parts [N], as `PreparedCohort.endpoint` gives each."""

Predicted = Mapping[str, np.ndarray]
"""Column of predictions.parquet to its values [N]."""

LOWER_IS_BETTER = ("brier", "integrated_brier", "calibration_error", "absolute_error")
"""What comes before the first ``/`` in the names of metrics that are better when lower."""

IDEAL = {"calibration_slope": 1, "calibration_intercept": 0, "observed_by_expected": 1, "coverage": LEVEL}
"""Likewise, of metrics that are neither: to the value that they should have."""


@dataclass(frozen=True)
class Calibration:
    """How well predictions agree with what happened, of patients whom all folds together tested.

    Attributes:
        scores: Name, in `IDEAL` or `LOWER_IS_BETTER`, to score over weights of all patients.
        p_values: Name to the p-value of a test; small where predictions do not agree.
        counts: What is counted or averaged, such as a class, to how much was ``observed`` and ``expected`` of it.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    p_values: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, float]] = field(default_factory=dict)


class TaskConfig(Config):
    """What all tasks are told."""

    weight: float = Field(default=1.0, gt=0, description="Of this task's loss in the sum over tasks.")


class OneEndpoint(TaskConfig):
    """A task that reads one endpoint."""

    endpoint: str


class Task(nn.Module, ABC):
    """A task on a model's fused embedding.

    It is a module for what it learns from training patients, such as class weights or a baseline hazard: these are
    buffers, and buffers take the size of what is loaded into them. What its head learns is in the head.

    In a run: `fit` once on the training patients; `head` once; `loss` on every batch; `finish` once after training,
    with the outputs for all training patients; then `predict`, `metrics` and `figures` on others.

    Args:
        config: The task's own config.
        declared: Endpoint to its entry in the cohort's manifest, with ``kind`` and, say, ``classes``.

    Attributes:
        name: What it is about, for keys and headings: the endpoint.
        endpoints: Names of the endpoints that it reads.
        primary: The metric by which the result is reported; higher is better.
        chance: The score of a constant answer by `primary`, where `constants` has none to be scored.
        balanced: Whether every class counts as much, however many patients have it.

    Raises:
        ConfigError: The cohort has no such endpoint, or it is of another kind.
    """

    Config: type[TaskConfig]
    name: str
    endpoints: tuple[str, ...]
    primary: str
    chance: float
    balanced: bool = True

    def __init__(self, config: TaskConfig, declared: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.config: Any = config
        self.register_load_state_dict_pre_hook(_take_sizes)

    @classmethod
    @abstractmethod
    def tiny(cls) -> TaskConfig:
        """All defaults, for endpoints called like their kind, or ``binary`` and ``binary_2`` for two of two classes."""

    @abstractmethod
    def labelled(self, endpoints: Truth) -> np.ndarray:
        """Bool [N], the patients who can teach or test it."""

    @abstractmethod
    def strata(self, endpoints: Truth) -> np.ndarray:
        """[N] int64, numbers of alike outcomes that splits should spread evenly; -1 where not labelled."""

    def check(self, endpoints: Truth) -> None:
        """Refuse what its config asks of endpoints that cannot tell it.

        Args:
            endpoints: Of the whole cohort.

        Raises:
            ConfigError: So it is.
        """

    @abstractmethod
    def untaught(self, endpoints: Truth) -> str:
        """Why some patients teach nothing, such as that nobody had the event; empty where they teach something."""

    def constants(self, endpoints: Truth) -> list[dict[str, np.ndarray]]:
        """Answers that are the same for every patient, of which the best is chance; none where `chance` needs no data.

        Args:
            endpoints: Of training patients.

        Returns:
            For each answer the columns of `predict`, of one patient [1].
        """
        return []

    def fit(self, endpoints: Truth, groups: np.ndarray) -> None:
        """Learn from the labels of training patients.

        Args:
            endpoints: Of N training patients, labelled or not.
            groups: [N] names.
        """

    @abstractmethod
    def head(self, width: int) -> nn.Module:
        """A map of embeddings [B, width] to outputs."""

    @abstractmethod
    def loss(self, outputs: Tensor, endpoints: Labels, groups: Sequence[str]) -> Tensor:
        """This process's share of the loss of a batch: the sum over processes is the loss of the whole batch.

        A patient without a label contributes nothing; without any label, or event, it is zero, and has a gradient.

        Args:
            outputs: [B, ...] of the head; whatever where not labelled.
            endpoints: Of the batch.
            groups: [B] names.
        """

    def loss_of(self, endpoints: Labels, groups: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Of N patients alone, outputs [N, ...] to their `loss`; for outputs that change while the patients do not.

        Args:
            endpoints: Of the patients.
            groups: [N] names.
        """
        return functools.partial(self.loss, endpoints=endpoints, groups=groups)

    def finish(self, outputs: Tensor, endpoints: Truth, groups: np.ndarray) -> None:
        """Learn from what came out for the training patients, once the head is trained.

        Args:
            outputs: [N, ...] of the head.
            endpoints: Of the N training patients, labelled or not.
            groups: [N] names.
        """

    @abstractmethod
    def predict(self, outputs: Tensor, groups: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of predictions.parquet [N], the same whichever training patients it was fitted on."""

    @abstractmethod
    def outputs_of(self, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        """What a linear model predicts, as a head would say it, so that both can be mixed and measured alike.

        Args:
            predicted: Endpoint to ``risk`` [N], or ``risk/CAUSE`` of each cause where there are several;
                ``probability`` [N, K] of each class; or ``value`` [N].

        Returns:
            [N, ...] float64.
        """

    @abstractmethod
    def uncertain(self) -> list[Uncertain]:
        """What can be off of what it predicts, each with nothing learned yet."""

    @abstractmethod
    def scores(self, outputs: Tensor) -> dict[str, Tensor]:
        """What an explanation is of: numbers linear in outputs, so that those of a stack are the sum of its methods'.

        Args:
            outputs: [N, ...] of the head; gradients flow through.

        Returns:
            Name, such as a class or ``risk``, to [N]; more of it the higher.
        """

    @abstractmethod
    def metrics(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> dict[str, Score]:
        """Name to score, over weights of all N patients, of whom those not labelled are not counted."""

    def calibration(self, truth: Truth, predicted: Predicted, groups: np.ndarray, folds: np.ndarray) -> Calibration:
        """How far probabilities or numbers can be taken at their word; of predictions that are none, nothing.

        Args:
            truth: Of N patients, labelled or not.
            predicted: Columns [N], each patient's by the fold that tested them.
            groups: [N] names.
            folds: [N] names: what is predicted up to a constant of a fold is compared within it.
        """
        return Calibration()

    @abstractmethod
    def figures(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> list[Picture]:
        """Figures for the report."""


def _take_sizes(task: nn.Module, stored: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Give buffers the size of what is about to be loaded into them."""
    for name, buffer in list(task.named_buffers(recurse=False)):
        if prefix + name in stored:
            setattr(task, name, buffer.new_empty(stored[prefix + name].shape))


def declared_as(declared: Mapping[str, Mapping[str, Any]], endpoint: str, *kinds: str) -> Mapping[str, Any]:
    """The manifest's entry of an endpoint.

    Raises:
        ConfigError: There is none, or it is of another kind.
    """
    where = f"endpoint '{endpoint}'"
    if endpoint not in declared:
        raise ConfigError("the cohort has no such endpoint", where=where, fix=nearest(endpoint, declared))
    entry = declared[endpoint]
    if entry["kind"] not in kinds:
        raise ConfigError(
            f"is of kind {entry['kind']}, and this task is for {' or '.join(kinds)}",
            where=where,
            fix=f"use the task `{entry['kind']}`, or choose another endpoint",
        )
    return entry


def constant_probabilities(code_N: np.ndarray, classes: int) -> np.ndarray:
    """[K + 1, K] the share of each class in training, which may be empty, and each class for certain.

    Args:
        code_N: [N] of training patients, -1 where unknown.
        classes: K.
    """
    count_K = np.bincount(code_N[code_N >= 0], minlength=classes)
    return np.concatenate([count_K[None] / max(1, count_K.sum()), np.eye(classes)])


def calibration_of_classes(
    true_NK: np.ndarray, probability_NK: np.ndarray, names: Sequence[str], rows: np.ndarray
) -> Calibration:
    """The error of the likeliest class or of the only one, one slope, an intercept of each, and how many have it.

    Args:
        true_NK: [N, K] bool.
        probability_NK: [N, K].
        names: Of the classes; the intercept of a single one has no name.
        rows: Mask or positions of the N patients among all.
    """
    likeliest = probability_NK.argmax(axis=1)[:, None]
    right_N, stated_N = (np.take_along_axis(of_NK, likeliest, axis=1)[:, 0] for of_NK in (true_NK, probability_NK))
    scores = {"calibration_error": calibration_error(right_N, stated_N)}
    scores["calibration_slope"] = logistic_slope(true_NK, probability_NK)
    counts = {}
    for name, true_N, probability_N in zip(names, true_NK.T, probability_NK.T, strict=True):
        ending = f"/{name}" if len(names) > 1 else ""
        scores[f"calibration_intercept{ending}"] = logistic_intercept(true_N, probability_N)
        counts[name] = {"observed": float(true_N.sum()), "expected": float(probability_N.sum())}
    return Calibration({name: of_rows(score, rows) for name, score in scores.items()}, counts=counts)


def only_class(code_N: np.ndarray, names: Sequence[str]) -> str:
    """That nobody has a class, or all the same; empty where there are two.

    Args:
        code_N: [N], -1 where unknown.
        names: Of the classes.
    """
    found, counts = np.unique(code_N[code_N >= 0], return_counts=True)
    if not len(found):
        return "no patient has a class"
    if len(found) == 1:
        everybody = f"all of {counts[0]:,} patients have" if counts[0] > 1 else "the only patient has"
        return f"{everybody} the class '{names[int(found[0])]}'"
    return ""


def log_odds(probability: np.ndarray) -> Tensor:
    """Of probabilities, none of which counts as certain; float64."""
    return torch.logit(torch.from_numpy(np.asarray(probability, dtype=np.float64)), eps=LEAST_PROBABILITY)


def share_of_mean(own_sum: Tensor, own_count: Tensor) -> Tensor:
    """This process's share of a mean over all processes; zero where nothing is counted."""
    count = sum_over_processes(own_count)
    return own_sum / torch.where(count > 0, count, torch.ones_like(count))


def to_numpy(values: Tensor) -> np.ndarray:
    """Values as float64 on the host."""
    return values.detach().double().cpu().numpy()
