"""The response task: ordered classes of response by proportional odds, or responder or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from finetune.report.figures.classes import binary_figures, confusion_matrix
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
    log_odds,
    only_class,
    share_of_mean,
    tasks,
    to_numpy,
)
from finetune.uncertainty.base import Uncertain
from finetune.uncertainty.classes import OfClasses
from foundation.linear.learners import LEAST_PROBABILITY
from foundation.metrics.class_scores import auprc, auroc, balanced_accuracy, quadratic_kappa
from foundation.metrics.score import Score, of_rows
from foundation.model.layers.values import at_least_single
from foundation.report.page import Picture

LEAST_STEP = 1e-3
"""Between two thresholds, in log odds: a class that nobody has in training must not become impossible."""

RESPONDS = ("no responder", "responder")


class ResponseConfig(OneEndpoint):
    """How the classes are understood."""

    task: Literal["response"] = "response"
    form: Literal["ordinal", "responder"] = Field(
        default="ordinal", description="All classes in their order, or only whether the response is in the upper half."
    )


class OrdinalHead(nn.Module):
    """Log odds of being above each threshold, from one score (McCullagh 1980, Regression models for ordinal data).

    The first threshold is free and each other one is a positive step above the one before, so that they stay in order.

    Args:
        width: Of the embedding.
        classes: K, in order.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        # Classes of equal probability where the score is 0.
        start = torch.arange(1, classes).div(classes).logit()
        self.first = nn.Parameter(start[:1].clone())
        self.steps = nn.Parameter(start.diff().expm1().log())

    def thresholds(self) -> Tensor:
        """[K - 1], increasing."""
        return torch.cat([self.first, functional.softplus(self.steps) + LEAST_STEP]).cumsum(0)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, K - 1], decreasing along the thresholds."""
        return self.score(x_BD) - self.thresholds()


@tasks.register("response")
class Response(Task):
    """Proportional odds over the classes, or logistic regression of the upper half of them."""

    Config = ResponseConfig
    primary, chance = "auroc", 0.5

    @classmethod
    def tiny(cls) -> ResponseConfig:
        """All defaults."""
        return ResponseConfig(endpoint="response")

    def __init__(self, config: ResponseConfig, declared: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, declared)
        self.ordinal = config.form == "ordinal"
        self.classes = list(declared_as(declared, config.endpoint, "response")["classes"])
        self.name, self.endpoints = config.endpoint, (config.endpoint,)

    def labelled(self, endpoints: Truth) -> np.ndarray:
        """Those whose response is known."""
        return endpoints[self.name]["code"] >= 0

    def strata(self, endpoints: Truth) -> np.ndarray:
        """The class."""
        return endpoints[self.name]["code"]

    def untaught(self, endpoints: Truth) -> str:
        """Whether there are two classes, and some of them respond and others do not."""
        code_N = endpoints[self.name]["code"]
        return only_class(code_N, self.classes) or only_class(self._responding(endpoints), RESPONDS)

    def constants(self, endpoints: Truth) -> list[dict[str, np.ndarray]]:
        """The shares of the classes in training, and each class for certain."""
        rows = constant_probabilities(endpoints[self.name]["code"], len(self.classes))
        answers = [self._by_class(row_K[None]) for row_K in rows]
        return (
            answers
            if self.ordinal
            else [{name: answer[name] for name in ("probability/responder",)} for answer in answers]
        )

    def head(self, width: int) -> nn.Module:
        """Log odds of being above each threshold [B, K - 1], or of responding [B, 1]."""
        return OrdinalHead(width, len(self.classes)) if self.ordinal else nn.Linear(width, 1)

    def loss(self, outputs: Tensor, endpoints: Labels, groups: Sequence[str]) -> Tensor:
        """Negative log-likelihood per patient."""
        code_B = endpoints[self.name]["code"]
        known = code_B >= 0
        above_BT, code_B = at_least_single(outputs[known]), code_B[known]
        if self.ordinal:
            total = -ordinal_log_likelihood(above_BT, code_B).sum()
        else:
            answer = self._responds(code_B).to(above_BT.dtype)
            total = functional.binary_cross_entropy_with_logits(above_BT[:, 0], answer, reduction="sum")
        return share_of_mean(total, known.sum().to(total.dtype))

    def predict(self, outputs: Tensor, groups: np.ndarray) -> dict[str, np.ndarray]:
        """The probability of responding and, in the ordinal form, of each class."""
        above_NT = to_numpy(outputs.double().sigmoid())
        if not self.ordinal:
            return {"probability/responder": above_NT[:, 0]}
        edges = np.pad(above_NT, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
        return self._by_class(-np.diff(edges, axis=1))

    def outputs_of(self, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        """Log odds of being above each threshold [N, K - 1], or of responding [N, 1]."""
        # A class that is impossible would leave two thresholds at one place.
        probability_NK = np.maximum(predicted[self.name]["probability"], LEAST_PROBABILITY)
        probability_NK = probability_NK / probability_NK.sum(axis=1, keepdims=True)
        if not self.ordinal:
            return log_odds(
                probability_NK[:, [*self._responds(np.arange(len(self.classes)))]].sum(axis=1, keepdims=True)
            )
        return log_odds(probability_NK[:, :0:-1].cumsum(axis=1)[:, ::-1].copy())

    def _by_class(self, probability_NK: np.ndarray) -> dict[str, np.ndarray]:
        responds = probability_NK[:, self._responds(np.arange(len(self.classes)))].sum(axis=1)
        columns = {f"probability/{name}": probability_NK[:, k] for k, name in enumerate(self.classes)}
        return {"probability/responder": responds, **columns}

    def uncertain(self) -> list[Uncertain]:
        """The class, or whether it is one of the upper half."""
        if self.ordinal:
            columns = [f"probability/{name}" for name in self.classes]
            return [OfClasses(self.name, self.classes, columns, lambda truth: truth[self.name]["code"], ordered=True)]
        return [OfClasses(self.name, RESPONDS, ["probability/responder"], self._responding)]

    def _responding(self, truth: Truth) -> np.ndarray:
        """[N] 1 for a responder, 0 for none, -1 where not known."""
        code_N = truth[self.name]["code"]
        return np.where(code_N >= 0, self._responds(code_N), -1)

    def scores(self, outputs: Tensor) -> dict[str, Tensor]:
        """The log odds of responding, or of being above a threshold in the mean of all."""
        return {"responder": outputs.mean(dim=1)}

    def metrics(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> dict[str, Score]:
        """Of responder or not, and of the classes in the ordinal form."""
        known, code_N, probability_N = self._known(truth, predicted)
        responds_N = self._responds(code_N)
        scores = {
            "auroc": auroc(responds_N, probability_N),
            "auprc": auprc(responds_N, probability_N),
        }
        if self.ordinal:
            guess_N = self._guess(predicted)[known]
            scores["quadratic_kappa"] = quadratic_kappa(code_N, guess_N, len(self.classes))
            scores["balanced_accuracy"] = balanced_accuracy(code_N, guess_N)
        return {name: of_rows(score, known) for name, score in scores.items()}

    def calibration(self, truth: Truth, predicted: Predicted, groups: np.ndarray, folds: np.ndarray) -> Calibration:
        """Of the probability of responding."""
        known, code_N, probability_N = self._known(truth, predicted)
        return calibration_of_classes(self._responds(code_N)[:, None], probability_N[:, None], ["responder"], known)

    def figures(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> list[Picture]:
        """Reliability, ROC, precision over recall and decision curve of responding; confusion of the classes."""
        known, code_N, probability_N = self._known(truth, predicted)
        pictures = binary_figures(self._responds(code_N), probability_N, "responder")
        if self.ordinal:
            pictures.append(confusion_matrix(code_N, self._guess(predicted)[known], self.classes))
        return pictures

    def _responds(self, code: Any) -> Any:
        """Whether a class is in the upper half."""
        return 2 * code >= len(self.classes)

    def _guess(self, predicted: Predicted) -> np.ndarray:
        return np.stack([predicted[f"probability/{name}"] for name in self.classes], axis=1).argmax(axis=1)

    def _known(self, truth: Truth, predicted: Predicted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known = self.labelled(truth)
        return known, truth[self.name]["code"][known], predicted["probability/responder"][known]


def ordinal_log_likelihood(above_BT: Tensor, code_B: Tensor) -> Tensor:
    """Logarithm [B] of the probability of the class that is true.

    Args:
        above_BT: [B, K - 1] log odds of being above each threshold, decreasing.
        code_B: [B] 0 to K - 1.
    """
    # The probability of a class is that of being above its lower threshold and not above its upper one:
    # sigmoid(low) - sigmoid(high) = sigmoid(low) sigmoid(-high) (1 - exp(high - low)).
    padded = functional.pad(functional.pad(above_BT, (1, 0), value=torch.inf), (0, 1), value=-torch.inf)
    low, high = (padded.gather(1, (code_B + shift)[:, None])[:, 0] for shift in (0, 1))
    between = torch.log(-torch.expm1(high - low))
    return functional.logsigmoid(low) + functional.logsigmoid(-high) + between
