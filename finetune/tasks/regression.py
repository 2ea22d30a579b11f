"""The regression task: a number, such as the response of a tumour to a drug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from finetune.report.figures.numbers import scatter
from finetune.tasks.base import (
    Calibration,
    Labels,
    OneEndpoint,
    Predicted,
    Task,
    Truth,
    declared_as,
    share_of_mean,
    tasks,
    to_numpy,
)
from finetune.uncertainty.base import Uncertain
from finetune.uncertainty.numbers import OfNumber
from foundation.metrics.calibration import linear_intercept, linear_slope
from foundation.metrics.number_scores import absolute_error, pearson, r_squared, spearman
from foundation.metrics.score import Score, of_rows
from foundation.model.layers.values import at_least_single
from foundation.report.page import Picture

STRATA = 4
"""Quantiles of the value that splits spread evenly."""


class RegressionConfig(OneEndpoint):
    """Which number."""

    task: Literal["regression"] = "regression"


@tasks.register("regression")
class Regression(Task):
    """Linear regression on the embedding, by mean squared error of the standardised value."""

    Config = RegressionConfig
    primary, chance = "r_squared", 0.0
    centre: Tensor
    scale: Tensor

    @classmethod
    def tiny(cls) -> RegressionConfig:
        """All defaults."""
        return RegressionConfig(endpoint="regression")

    def __init__(self, config: RegressionConfig, declared: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, declared)
        self.unit = declared_as(declared, config.endpoint, "regression").get("unit", "")
        self.name, self.endpoints = config.endpoint, (config.endpoint,)
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def labelled(self, endpoints: Truth) -> np.ndarray:
        """Those whose value is known."""
        return np.isfinite(endpoints[self.name]["value"])

    def untaught(self, endpoints: Truth) -> str:
        """Whether there are two values."""
        values = np.unique(endpoints[self.name]["value"][self.labelled(endpoints)])
        if not len(values):
            return "no patient has a value"
        return f"all patients have the value {values[0]:g}" if len(values) == 1 else ""

    def strata(self, endpoints: Truth) -> np.ndarray:
        """The quarter of the values."""
        value_N, known = endpoints[self.name]["value"], self.labelled(endpoints)
        edges = np.quantile(value_N[known], np.arange(1, STRATA) / STRATA) if known.any() else []
        return np.where(known, np.digitize(value_N, edges), -1)

    def fit(self, endpoints: Truth, groups: np.ndarray) -> None:
        """Mean and standard deviation."""
        value_N = endpoints[self.name]["value"][self.labelled(endpoints)]
        self.centre.fill_(value_N.mean())
        self.scale.fill_(value_N.std() if np.ptp(value_N) > 0 else 1.0)

    def head(self, width: int) -> nn.Module:
        """A linear map to the standardised value [B, 1]."""
        return nn.Linear(width, 1)

    def loss(self, outputs: Tensor, endpoints: Labels, groups: Sequence[str]) -> Tensor:
        """Mean squared error, in standard deviations of the training patients."""
        value_B = endpoints[self.name]["value"]
        known = torch.isfinite(value_B)
        guess_B = at_least_single(outputs[known, 0])
        wanted_B = ((value_B[known] - self.centre) / self.scale).to(guess_B.dtype)
        return share_of_mean(((guess_B - wanted_B) ** 2).sum(), known.sum().to(guess_B.dtype))

    def predict(self, outputs: Tensor, groups: np.ndarray) -> dict[str, np.ndarray]:
        """The value, in its own unit."""
        return {"value": to_numpy(outputs[:, 0].double() * self.scale + self.centre)}

    def outputs_of(self, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        """The standardised value [N, 1]."""
        value_N = torch.from_numpy(np.asarray(predicted[self.name]["value"], dtype=np.float64))
        return ((value_N - self.centre.cpu()) / self.scale.cpu())[:, None]

    def uncertain(self) -> list[Uncertain]:
        """The value."""
        return [OfNumber(self.name)]

    def scores(self, outputs: Tensor) -> dict[str, Tensor]:
        """How far the value is from the mean of training patients, in its own unit."""
        return {"value": outputs[:, 0] * self.scale.to(outputs.dtype)}

    def metrics(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> dict[str, Score]:
        """Of the value."""
        known = self.labelled(truth)
        value_N, guess_N = truth[self.name]["value"][known], predicted["value"][known]
        scores = {
            "r_squared": r_squared(value_N, guess_N),
            "pearson": pearson(value_N, guess_N),
            "spearman": spearman(value_N, guess_N),
            "absolute_error": absolute_error(value_N, guess_N),
        }
        return {name: of_rows(score, known) for name, score in scores.items()}

    def calibration(self, truth: Truth, predicted: Predicted, groups: np.ndarray, folds: np.ndarray) -> Calibration:
        """Slope and intercept of the true on the predicted value, and the means of both."""
        known = self.labelled(truth)
        value_N, guess_N = truth[self.name]["value"][known], predicted["value"][known]
        scores = {
            "calibration_slope": linear_slope(value_N, guess_N),
            "calibration_intercept": linear_intercept(value_N, guess_N),
        }
        means = {"observed": float(value_N.mean()), "expected": float(guess_N.mean())} if len(value_N) else {}
        return Calibration({name: of_rows(score, known) for name, score in scores.items()}, counts={"mean": means})

    def figures(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> list[Picture]:
        """Predicted against true values."""
        known = self.labelled(truth)
        label = f"{self.name} ({self.unit})" if self.unit else self.name
        return [scatter(truth[self.name]["value"][known], predicted["value"][known], label)]
