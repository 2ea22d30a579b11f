"""The subtype task: one of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from finetune.report.figures.classes import class_figures
from finetune.tasks.base import (
    Calibration,
    Labels,
    OneEndpoint,
    Predicted,
    Task,
    Truth,
    calibration_of_classes,
    constant_probabilities,
    declared_as,
    only_class,
    share_of_mean,
    tasks,
    to_numpy,
)
from finetune.uncertainty.base import Uncertain
from finetune.uncertainty.classes import OfClasses
from foundation.linear.learners import LEAST_PROBABILITY
from foundation.metrics.class_scores import balanced_accuracy, macro_auprc, macro_auroc, macro_f1
from foundation.metrics.score import Score, of_rows
from foundation.model.layers.values import at_least_single
from foundation.report.page import Picture


class SubtypeConfig(OneEndpoint):
    """Which classes, and whether rare ones count more."""

    task: Literal["subtype"] = "subtype"
    balanced: bool = Field(default=True, description="Every class counts as much, however many patients it has.")


@tasks.register("subtype")
class Subtype(Task):
    """Multinomial logistic regression on the embedding, by cross-entropy."""

    Config = SubtypeConfig
    primary = "balanced_accuracy"
    class_weight_K: Tensor

    @classmethod
    def tiny(cls) -> SubtypeConfig:
        """All defaults."""
        return SubtypeConfig(endpoint="subtype")

    def __init__(self, config: SubtypeConfig, declared: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, declared)
        self.balanced = config.balanced
        self.classes = list(declared_as(declared, config.endpoint, "subtype", "response")["classes"])
        self.name, self.endpoints = config.endpoint, (config.endpoint,)
        self.chance = 1 / len(self.classes)
        self.register_buffer("class_weight_K", torch.ones(len(self.classes)))

    def labelled(self, endpoints: Truth) -> np.ndarray:
        """Those whose class is known."""
        return endpoints[self.name]["code"] >= 0

    def strata(self, endpoints: Truth) -> np.ndarray:
        """The class."""
        return endpoints[self.name]["code"]

    def untaught(self, endpoints: Truth) -> str:
        """Whether there are two classes."""
        return only_class(endpoints[self.name]["code"], self.classes)

    def constants(self, endpoints: Truth) -> list[dict[str, np.ndarray]]:
        """The shares of the classes in training, and each class for certain."""
        rows = constant_probabilities(endpoints[self.name]["code"], len(self.classes))
        return [self._by_class(row_K[None]) for row_K in rows]

    def fit(self, endpoints: Truth, groups: np.ndarray) -> None:
        """Count the classes, so that rare ones can be given more weight."""
        if self.balanced:
            code_N = endpoints[self.name]["code"]
            count_K = np.bincount(code_N[code_N >= 0], minlength=len(self.classes))
            weight_K = count_K.sum() / (np.maximum(count_K, 1) * np.count_nonzero(count_K))
            self.class_weight_K.copy_(torch.from_numpy(weight_K))

    def head(self, width: int) -> nn.Module:
        """A linear map to the classes' logits [B, K]."""
        return nn.Linear(width, len(self.classes))

    def loss(self, outputs: Tensor, endpoints: Labels, groups: Sequence[str]) -> Tensor:
        """Cross-entropy, averaged over patients by the weights of their classes."""
        code_B = endpoints[self.name]["code"]
        known = code_B >= 0
        logits_BK, code_B = at_least_single(outputs[known]), code_B[known]
        weight_K = self.class_weight_K.to(logits_BK.dtype)
        total = functional.cross_entropy(logits_BK, code_B, weight=weight_K, reduction="sum")
        return share_of_mean(total, weight_K[code_B].sum())

    def predict(self, outputs: Tensor, groups: np.ndarray) -> dict[str, np.ndarray]:
        """The probability of each class."""
        return self._by_class(to_numpy(outputs.double().softmax(dim=1)))

    def outputs_of(self, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        """The logarithm of the probability of each class [N, K]."""
        return torch.from_numpy(np.log(np.maximum(predicted[self.name]["probability"], LEAST_PROBABILITY)))

    def uncertain(self) -> list[Uncertain]:
        """The class."""
        columns = [f"probability/{name}" for name in self.classes]
        return [OfClasses(self.name, self.classes, columns, lambda truth: truth[self.name]["code"])]

    def scores(self, outputs: Tensor) -> dict[str, Tensor]:
        """The log probability of each class beyond the mean of all classes."""
        beyond_NK = outputs - outputs.mean(dim=1, keepdim=True)
        return dict(zip(self.classes, beyond_NK.unbind(dim=1), strict=True))

    def metrics(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> dict[str, Score]:
        """Of the likeliest class and of the probabilities."""
        known, code_N, probability_NK = self._known(truth, predicted)
        guess_N = probability_NK.argmax(axis=1)
        scores = {
            "balanced_accuracy": balanced_accuracy(code_N, guess_N),
            "macro_f1": macro_f1(code_N, guess_N),
            "auroc": macro_auroc(code_N, probability_NK),
            "auprc": macro_auprc(code_N, probability_NK),
        }
        return {name: of_rows(score, known) for name, score in scores.items()}

    def calibration(self, truth: Truth, predicted: Predicted, groups: np.ndarray, folds: np.ndarray) -> Calibration:
        """One slope for all classes, an intercept of each, and patients of each; of two classes, of the second."""
        known, code_N, probability_NK = self._known(truth, predicted)
        told = slice(1 if len(self.classes) == 2 else 0, None)
        true_NK = code_N[:, None] == np.arange(len(self.classes))
        return calibration_of_classes(true_NK[:, told], probability_NK[:, told], self.classes[told], known)

    def figures(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> list[Picture]:
        """Confusion matrix, reliability, ROC and precision over recall."""
        _, code_N, probability_NK = self._known(truth, predicted)
        return class_figures(code_N, probability_NK, self.classes)

    def _by_class(self, probability_NK: np.ndarray) -> dict[str, np.ndarray]:
        return {f"probability/{name}": probability_NK[:, k] for k, name in enumerate(self.classes)}

    def _known(self, truth: Truth, predicted: Predicted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known = self.labelled(truth)
        probability_NK = np.stack([predicted[f"probability/{name}"] for name in self.classes], axis=1)
        return known, truth[self.name]["code"][known], probability_NK[known]
