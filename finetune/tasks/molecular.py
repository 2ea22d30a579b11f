"""The molecular task: several yes-or-no endpoints at once, any of which may be unknown of a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from finetune.report.figures.classes import binary_figures
from finetune.tasks.base import (
    Calibration,
    Labels,
    Predicted,
    Task,
    TaskConfig,
    Truth,
    calibration_of_classes,
    constant_probabilities,
    declared_as,
    log_odds,
    only_class,
    share_of_mean,
    tasks,
    to_numpy,
)
from finetune.uncertainty.base import Uncertain
from finetune.uncertainty.classes import OfClasses
from foundation.errors import ConfigError
from foundation.metrics.class_scores import auprc, auroc, balanced_accuracy
from foundation.metrics.score import Score, average, of_rows
from foundation.model.layers.values import at_least_single
from foundation.report.page import Picture


class MolecularConfig(TaskConfig):
    """Which endpoints, and whether the rarer answer counts more."""

    task: Literal["molecular"] = "molecular"
    endpoints: tuple[str, ...] = Field(min_length=1, description="Each of two classes, of which the second is yes.")
    balanced: bool = Field(default=False, description="Yes and no count as much, however many patients have each.")


@tasks.register("molecular")
class Molecular(Task):
    """A logistic regression for each endpoint on one embedding."""

    Config = MolecularConfig
    primary, chance = "auroc", 0.5
    class_weight_KE: Tensor

    @classmethod
    def tiny(cls) -> MolecularConfig:
        """Two endpoints."""
        return MolecularConfig(endpoints=("binary", "binary_2"))

    def __init__(self, config: MolecularConfig, declared: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, declared)
        self.balanced = config.balanced
        self.endpoints = config.endpoints
        self.name = "+".join(config.endpoints)
        self.classes: dict[str, list[str]] = {}
        for endpoint in config.endpoints:
            classes = list(declared_as(declared, endpoint, "subtype", "response")["classes"])
            if len(classes) != 2:
                raise ConfigError(
                    f"has {len(classes)} classes, and molecular asks for yes or no",
                    where=f"endpoint '{endpoint}'",
                    fix="use the task `subtype` for it, or declare an endpoint with two classes",
                )
            self.classes[endpoint] = classes
        self.register_buffer("class_weight_KE", torch.ones(2, len(self.endpoints)))

    def labelled(self, endpoints: Truth) -> np.ndarray:
        """Those with any of the endpoints."""
        return np.any(self._codes(endpoints) >= 0, axis=1)

    def strata(self, endpoints: Truth) -> np.ndarray:
        """The combination of answers, of which a missing one is a third."""
        combined = (self._codes(endpoints) + 1) @ 3 ** np.arange(len(self.endpoints))
        return np.where(self.labelled(endpoints), combined, -1)

    def untaught(self, endpoints: Truth) -> str:
        """Whether each endpoint has both answers."""
        reasons = {name: only_class(endpoints[name]["code"], self.classes[name]) for name in self.endpoints}
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)

    def constants(self, endpoints: Truth) -> list[dict[str, np.ndarray]]:
        """Of each endpoint the shares of its answers in training, and each answer for certain."""
        rows = {name: constant_probabilities(endpoints[name]["code"], 2) for name in self.endpoints}
        return [{f"probability/{name}": rows[name][[k], 1] for name in self.endpoints} for k in range(3)]

    def fit(self, endpoints: Truth, groups: np.ndarray) -> None:
        """Count the answers, so that the rarer can be given more weight."""
        if self.balanced:
            code_NE = self._codes(endpoints)
            count_KE = np.stack([(code_NE == k).sum(axis=0) for k in (0, 1)])
            weight_KE = count_KE.sum(axis=0) / (2 * np.maximum(count_KE, 1))
            self.class_weight_KE.copy_(torch.from_numpy(weight_KE))

    def head(self, width: int) -> nn.Module:
        """A linear map to the log odds of yes [B, endpoints]."""
        return nn.Linear(width, len(self.endpoints))

    def loss(self, outputs: Tensor, endpoints: Labels, groups: Sequence[str]) -> Tensor:
        """Binary cross-entropy, averaged over the patients of each endpoint and then over endpoints."""
        code_BE = torch.stack([endpoints[name]["code"] for name in self.endpoints], dim=1)
        row, column = (code_BE >= 0).nonzero(as_tuple=True)
        logits, answer = at_least_single(outputs[row, column]), code_BE[row, column]
        each = functional.binary_cross_entropy_with_logits(logits, answer.to(logits.dtype), reduction="none")
        weight = self.class_weight_KE.to(logits.dtype)[answer, column]
        sums = logits.new_zeros(2, len(self.endpoints))
        total_E = sums[0].index_add(0, column, each * weight)
        mean_E = share_of_mean(total_E, sums[1].index_add(0, column, weight))
        return mean_E.sum() / len(self.endpoints)

    def predict(self, outputs: Tensor, groups: np.ndarray) -> dict[str, np.ndarray]:
        """The probability of yes, for each endpoint."""
        probability_NE = to_numpy(outputs.double().sigmoid())
        return {f"probability/{name}": probability_NE[:, e] for e, name in enumerate(self.endpoints)}

    def outputs_of(self, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        """The log odds of yes [N, endpoints]."""
        return torch.stack([log_odds(predicted[name]["probability"][:, 1]) for name in self.endpoints], dim=1)

    def uncertain(self) -> list[Uncertain]:
        """The class of each endpoint."""

        def of(name: str) -> OfClasses:
            columns, code = [f"probability/{name}"], lambda truth: truth[name]["code"]
            return OfClasses(name, self.classes[name], columns, code, ending=f"/{name}")

        return [of(name) for name in self.endpoints]

    def scores(self, outputs: Tensor) -> dict[str, Tensor]:
        """The log odds of yes, for each endpoint."""
        return dict(zip(self.endpoints, outputs.unbind(dim=1), strict=True))

    def metrics(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> dict[str, Score]:
        """Of each endpoint, over those who have it, and the mean AUROC."""
        scores, areas = {}, []
        for name in self.endpoints:
            known, yes_N, probability_N = self._known(name, truth, predicted)
            of_endpoint = {
                "auroc": auroc(yes_N, probability_N),
                "auprc": auprc(yes_N, probability_N),
                "balanced_accuracy": balanced_accuracy(yes_N, probability_N >= 0.5),
            }
            scores |= {f"{measure}/{name}": of_rows(score, known) for measure, score in of_endpoint.items()}
            areas.append(scores[f"auroc/{name}"])
        return {"auroc": average(areas), **scores}

    def calibration(self, truth: Truth, predicted: Predicted, groups: np.ndarray, folds: np.ndarray) -> Calibration:
        """Slope, intercept and patients of each endpoint, over those who have it."""
        together = Calibration()
        for name in self.endpoints:
            known, yes_N, probability_N = self._known(name, truth, predicted)
            found = calibration_of_classes(yes_N[:, None], probability_N[:, None], [name], known)
            together.scores.update({f"{measure}/{name}": score for measure, score in found.scores.items()})
            together.counts.update(found.counts)
        return together

    def figures(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> list[Picture]:
        """Reliability, ROC, precision over recall and decision curve of each endpoint."""
        pictures = []
        for name in self.endpoints:
            _, yes_N, probability_N = self._known(name, truth, predicted)
            pictures += binary_figures(yes_N, probability_N, f"{name} {self.classes[name][1]}")
        return pictures

    def _codes(self, endpoints: Truth) -> np.ndarray:
        return np.stack([endpoints[name]["code"] for name in self.endpoints], axis=1)

    def _known(self, name: str, truth: Truth, predicted: Predicted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known = truth[name]["code"] >= 0
        return known, truth[name]["code"][known] == 1, predicted[f"probability/{name}"][known]
