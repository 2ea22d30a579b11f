"""The survival task: who has the event first, and each patient's survival probability at any time.

Either by Cox's proportional hazards or by hazards in intervals of time; for each group, say a cancer type, with a
baseline of its own. Recurrence and progression are the same task on other columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from finetune.report.figures.survival import calibration_at, risk_groups
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
from finetune.tasks.survival_losses import (
    RiskSets,
    Watched,
    cox_of_all,
    interval_log_likelihood,
    log_hazards,
    observed_logits,
    remember,
)
from finetune.uncertainty.base import Uncertain
from finetune.uncertainty.times import OfTime
from foundation.collectives import name_hashes
from foundation.errors import ConfigError
from foundation.metrics.score import Score, average, of_rows
from foundation.metrics.survival_calibration import (
    d_calibration,
    events_by,
    hazard_slope,
    observed_by_expected,
    one_calibration,
)
from foundation.metrics.survival_curves import Censoring, breslow
from foundation.metrics.survival_scores import auc_at, brier_at, concordance, integrated_brier, uno
from foundation.model.layers.values import at_least_single
from foundation.report.page import Picture
from foundation.wording import counted

YEAR = {"days": 365.25, "weeks": 52.1786, "months": 12.0, "years": 1.0}
YEARS = (1, 2, 3)
"""Times that are told of where none are chosen."""

CURVE_POINTS = 12
"""Times from 0 to the last chosen one at which the probability of being free of the event is predicted."""

LEAST_PROBABILITY = 1e-9
"""Of survival, or of an event, in logarithms."""

STRATA = 3
"""Quantiles of the time, among those with the event and among those without, that splits spread evenly."""


class SurvivalConfig(OneEndpoint):
    """Which model of time."""

    task: Literal["survival"] = "survival"
    form: Literal["cox", "intervals"] = "cox"
    memory: int = Field(
        default=256,
        ge=0,
        description="Patients of earlier batches who stay in the risk sets of Cox's likelihood; fewer than there are.",
    )
    intervals: int = Field(default=10, ge=1, description="Of time, with as many training events in each.")
    times: tuple[float, ...] = Field(
        default=(), description="At which AUC, Brier score and calibration are told, in the endpoint's unit."
    )


@tasks.register("survival")
class Survival(Task):
    """A linear log hazard with Cox's partial likelihood, or linear logits of hazards in intervals of time.

    Raises:
        ConfigError: There are several kinds of event, and the form is Cox's; or a time is not above 0.
    """

    Config = SurvivalConfig
    primary, chance = "c_index", 0.5
    group_G: Tensor
    baseline: Tensor
    cuts: Tensor

    @classmethod
    def tiny(cls) -> SurvivalConfig:
        """All defaults, with times of the tests' units."""
        return SurvivalConfig(endpoint="survival")

    def __init__(self, config: SurvivalConfig, declared: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, declared)
        entry = declared_as(declared, config.endpoint, "survival")
        self.unit = entry["unit"]
        self.name, self.endpoints = config.endpoint, (config.endpoint,)
        self.causes = list(entry.get("causes", ["event"]))
        self.times = config.times or tuple(year * YEAR[self.unit] for year in YEARS)
        if min(self.times) <= 0:
            raise ConfigError("every time must be above 0", where=f"endpoint '{self.name}'", fix="correct `times`")
        if config.form == "cox" and len(self.causes) > 1:
            raise ConfigError(
                f"has {len(self.causes)} kinds of event, and `form: cox` predicts only one",
                where=f"endpoint '{self.name}'",
                fix="write `form: intervals`, which predicts each of them",
            )
        steps = np.linspace(0, max(self.times), CURVE_POINTS + 1)[1:]
        self.grid = np.union1d(steps[~np.isclose(steps[:, None], self.times).any(axis=1)], self.times)
        self.censoring: Censoring | None = None
        """Of the training patients; not saved, since only metrics need it, and those are made where it was fitted."""
        self.register_buffer("group_G", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("baseline", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("cuts", torch.zeros(0, dtype=torch.float64))
        for part, dtype in zip(Watched._fields, (torch.float32,) * 3 + (torch.int64,), strict=True):
            self.register_buffer(f"recent_{part}", torch.zeros(0, dtype=dtype))

    def labelled(self, endpoints: Truth) -> np.ndarray:
        """Those who were watched: whose time and event are known."""
        return np.isfinite(endpoints[self.name]["time"])

    def check(self, endpoints: Truth) -> None:
        """Refuse times for which nobody was followed."""
        longest = np.nanmax(endpoints[self.name]["time"], initial=0)
        if self.config.times and max(self.times) >= longest:
            raise ConfigError(
                f"no patient was followed for {max(self.times):g} {self.unit}",
                where=f"endpoint '{self.name}': times",
                fix=f"the longest follow-up is {longest:g} {self.unit}: write times below it",
            )

    def untaught(self, endpoints: Truth) -> str:
        """Whether anybody had an event."""
        known = self.labelled(endpoints)
        if not known.any():
            return "no patient has a time and an event"
        happened = endpoints[self.name]["event"][known] > 0
        return "" if happened.any() else f"none of {counted(len(happened), 'patient')} had the event"

    def strata(self, endpoints: Truth) -> np.ndarray:
        """The kind of event, and the third of its times."""
        time_N, event_N = (endpoints[self.name][part] for part in ("time", "event"))
        strata_N = np.full(len(time_N), -1)
        for cause in range(len(self.causes) + 1):
            here = event_N == cause
            if here.any():
                edges = np.quantile(time_N[here], np.arange(1, STRATA) / STRATA)
                strata_N[here] = STRATA * cause + np.digitize(time_N[here], edges)
        return strata_N

    def fit(self, endpoints: Truth, groups: np.ndarray) -> None:
        """Censoring; and for intervals their edges, and how often each event happens in each, in each group."""
        time_N, event_N, groups_N = self._known(endpoints, groups)
        self.censoring = Censoring(time_N, event_N, groups_N)
        self.group_G = name_hashes(np.unique(groups_N)).to(self.group_G.device)
        if self.config.form == "intervals":
            cuts = np.unique(np.quantile(time_N[event_N > 0], np.linspace(0, 1, self.config.intervals + 1)[1:]))
            self.cuts = torch.from_numpy(np.append(0.0, cuts[cuts > 0])).to(self.cuts)
            time, cause = torch.from_numpy(time_N).to(self.cuts), torch.from_numpy(event_N).to(self.group_G)
            none = self.cuts.new_zeros(len(self.causes), len(self.cuts) - 1)
            everyone = observed_logits(time, cause, self.cuts, none)
            within = (torch.from_numpy(groups_N == group).to(time.device) for group in np.unique(groups_N))
            of_group = [observed_logits(time[here], cause[here], self.cuts, everyone) for here in within]
            self.baseline = torch.stack([*of_group, everyone])

    def head(self, width: int) -> nn.Module:
        """A linear map to the log hazard [B, 1], or to logits [B, C T] beyond the baseline's; call `fit` before."""
        if self.config.form == "cox":
            return nn.Linear(width, 1, bias=False)
        return nn.Linear(width, len(self.causes) * (len(self.cuts) - 1))

    def loss(self, outputs: Tensor, endpoints: Labels, groups: Sequence[str]) -> Tensor:
        """Negative log-likelihood per event (Cox), or per patient (intervals)."""
        time_B, event_B = (endpoints[self.name][part] for part in ("time", "event"))
        known = torch.isfinite(time_B)
        group_B = name_hashes(groups).to(outputs.device)[known]
        outputs, time_B, event_B = at_least_single(outputs[known]), time_B[known], event_B[known]
        if self.config.form == "intervals":
            logits_BCT = self._logits(outputs, group_B)
            cuts = self.cuts.to(time_B.dtype)
            each_B = interval_log_likelihood(logits_BCT, time_B, event_B.long(), cuts)
            return share_of_mean(-each_B.sum(), known.sum().to(each_B.dtype))
        own = Watched(outputs[:, 0], time_B, event_B, group_B)
        if not self.config.memory:
            return cox_of_all(own)[0]
        return self._cox_with_memory(own)

    def loss_of(self, endpoints: Labels, groups: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """See `Task.loss_of`; who is at risk at each event is found once."""
        if self.config.form == "intervals":
            return super().loss_of(endpoints, groups)
        time_N, event_N = (endpoints[self.name][part] for part in ("time", "event"))
        known = torch.isfinite(time_N)
        group_N = name_hashes(groups).to(time_N.device)[known]
        sets = RiskSets.of(time_N[known], event_N[known], group_N)
        return lambda outputs: sets.loss(at_least_single(outputs[known])[:, 0])

    def _cox_with_memory(self, own: Watched) -> Tensor:
        recent = Watched(*(getattr(self, f"recent_{part}") for part in Watched._fields))
        loss, everyone = cox_of_all(own, recent)
        if self.training:
            for part, column in zip(Watched._fields, remember(recent, everyone, self.config.memory), strict=True):
                setattr(self, f"recent_{part}", column)
        return loss

    def finish(self, outputs: Tensor, endpoints: Truth, groups: np.ndarray) -> None:
        """For Cox, the baseline hazard of each group by Breslow; and nobody's survival is remembered any more."""
        for part in Watched._fields:
            setattr(self, f"recent_{part}", getattr(self, f"recent_{part}")[:0])
        if self.config.form == "cox":
            time_N, event_N, groups_N = self._known(endpoints, groups)
            risk_N = to_numpy(outputs[:, 0])[self.labelled(endpoints)]
            within = [*(groups_N == group for group in np.unique(groups_N)), np.ones(len(time_N), dtype=bool)]
            hazards = [breslow(risk_N[here], time_N[here], event_N[here], self.grid) for here in within]
            self.baseline = torch.from_numpy(np.stack(hazards)).to(self.baseline)

    def predict(self, outputs: Tensor, groups: np.ndarray) -> dict[str, np.ndarray]:
        """The risk, higher is worse; and, for Cox after `finish`, the survival probability at times."""
        with torch.no_grad():
            group_N = name_hashes(groups).to(outputs.device)
            if self.config.form == "intervals":
                return self._predict(log_hazards(self._logits(outputs.double(), group_N)))
        columns = {"risk": to_numpy(outputs[:, 0])}
        if len(self.baseline):
            hazard_NT = self.baseline[self._place(group_N)] * outputs.detach().double().exp()
            columns |= self._columns(np.exp(-to_numpy(hazard_NT)))
        return columns

    def _predict(self, log_probability_NCT: Tensor) -> dict[str, np.ndarray]:
        """Risk of each kind of event: how much of it is expected by the last cut; and the probability of none."""
        log_free_NT = torch.nn.functional.pad(log_probability_NCT[:, 0].cumsum(dim=1), (1, 0))
        # A constant hazard within each interval, none after the last.
        cuts = self.cuts.numpy(force=True)
        free_NT = np.exp([np.interp(self.grid, cuts, line) for line in to_numpy(log_free_NT)])
        happens_NCT = log_free_NT[:, None, :-1].exp() * log_probability_NCT[:, 1:].exp()
        by_then_NC = to_numpy(happens_NCT.cumsum(dim=2).mean(dim=2))
        return {**{name: by_then_NC[:, c] for c, name in enumerate(self._risks())}, **self._columns(free_NT)}

    def outputs_of(self, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Tensor:
        """The log hazard [N, 1], or the same beyond the baseline's logits in every interval [N, C T]."""
        risk_NC = np.stack([predicted[self.name][risk] for risk in self._risks()], axis=1).astype(np.float64)
        each = 1 if self.config.form == "cox" else len(self.cuts) - 1
        return torch.from_numpy(risk_NC).repeat_interleave(each, dim=1)

    def uncertain(self) -> list[Uncertain]:
        """The time until any event."""
        return [OfTime(self.name, self.grid)]

    def scores(self, outputs: Tensor) -> dict[str, Tensor]:
        """The log hazard of each kind of event, in the mean of intervals."""
        log_hazard_NC = outputs.reshape(len(outputs), len(self.causes), -1).mean(dim=2)
        return dict(zip(self._risks(), log_hazard_NC.unbind(dim=1), strict=True))

    def metrics(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> dict[str, Score]:
        """C of Harrell and of Uno for each kind of event; AUC and Brier scores at times, where curves are predicted.

        Pairs are compared within groups only. Uno's C counts events up to the last chosen time.
        """
        known = self.labelled(truth)
        time_N, event_N, groups_N = self._known(truth, groups)
        happened_N = (event_N > 0).astype(np.float64)
        censoring = self.censoring or Censoring(time_N, happened_N, groups_N)
        scores: dict[str, Score] = {}
        for cause, column in enumerate(self._risks(), start=1):
            pairs = (predicted[column][known], time_N, (event_N == cause).astype(np.float64), groups_N)
            ending = column.removeprefix("risk")
            scores[f"c_index{ending}"] = concordance(*pairs)
            scores[f"uno_c{ending}"] = uno(*pairs, censoring, max(self.times))
        if len(self.causes) > 1:
            scores["c_index"] = average([scores[f"c_index/{cause}"] for cause in self.causes])
        if self._column(self.grid[0]) in predicted:
            scores |= self._of_curves(predicted, known, time_N, happened_N, groups_N, censoring)
        return {name: of_rows(score, known) for name, score in scores.items()}

    def _of_curves(
        self,
        predicted: Predicted,
        known: np.ndarray,
        time_N: np.ndarray,
        happened_N: np.ndarray,
        groups_N: np.ndarray,
        censoring: Censoring,
    ) -> dict[str, Score]:
        """Scores at the times that somebody of each group was watched beyond: of later ones nothing is known."""
        rest = (time_N, happened_N, groups_N, censoring)
        told = [at for at in self.grid if (censoring.watched(np.full(len(time_N), at), groups_N) > 0).all()]
        scores: dict[str, Score] = {}
        for at in [at for at in self.times if at in told]:
            free_N = predicted[self._column(at)][known]
            scores[f"auc/{at:g}"] = auc_at(at, -free_N, *rest)
            scores[f"brier/{at:g}"] = brier_at(at, free_N, *rest)
        if len(told) > 1:
            free_NT = np.stack([predicted[self._column(at)][known] for at in told], axis=1)
            scores["integrated_brier"] = integrated_brier(np.array(told), free_NT, *rest)
        return scores

    def calibration(self, truth: Truth, predicted: Predicted, groups: np.ndarray, folds: np.ndarray) -> Calibration:
        """Of the probability of being free of any event, where that is predicted.

        1-calibration and events are told of the chosen times that somebody was followed to. The slope is of log(-log S)
        at the last of these, within groups and folds: in a model of proportional hazards that is the log hazard up to a
        constant.
        """
        known = self.labelled(truth)
        time_N, event_N, groups_N = self._known(truth, groups)
        told = [at for at in self.times if (time_N >= at).any()]
        if not told or self._column(self.grid[0]) not in predicted:
            return Calibration()
        happened_N = (event_N > 0).astype(np.float64)
        free_NT = np.stack([predicted[self._column(at)][known] for at in self.grid], axis=1)
        scores: dict[str, Score] = {}
        p_values = {"d_calibration": self._d_calibration(free_NT, time_N, happened_N)}
        counts: dict[str, dict[str, float]] = {}
        for at in told:
            free_N = predicted[self._column(at)][known]
            p_values[f"one_calibration/{at:g}"] = one_calibration(at, free_N, time_N, happened_N)
            of_time = (at, free_N, time_N, happened_N, groups_N)
            scores[f"observed_by_expected/{at:g}"] = observed_by_expected(*of_time)
            observed_R, expected_R = events_by(*of_time, np.ones((1, len(time_N))))
            counts[f"{at:g}"] = {"observed": float(observed_R[0]), "expected": float(expected_R[0])}
        last_N = np.clip(predicted[self._column(max(told))][known], LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        within_N = np.char.add(np.char.add(groups_N, " "), folds[known])
        slope = hazard_slope(np.log(-np.log(last_N)), time_N, happened_N, within_N)
        scores = {"calibration_slope": slope, **scores}
        return Calibration({name: of_rows(score, known) for name, score in scores.items()}, p_values, counts)

    def _d_calibration(self, free_NT: np.ndarray, time_N: np.ndarray, happened_N: np.ndarray) -> float:
        """With hazards constant between times; who was watched beyond the last time of `grid` is censored then."""
        hazard_NT = np.pad(-np.log(np.maximum(free_NT, LEAST_PROBABILITY)), ((0, 0), (1, 0)))
        times_T = np.append(0.0, self.grid)
        own_N = [np.interp(time, times_T, line) for time, line in zip(time_N, hazard_NT, strict=True)]
        return d_calibration(np.exp(-np.array(own_N)), happened_N * (time_N <= self.grid[-1]))

    def figures(self, truth: Truth, predicted: Predicted, groups: np.ndarray) -> list[Picture]:
        """Kaplan-Meier by thirds of the risk, for each kind of event, and calibration at the chosen times."""
        known = self.labelled(truth)
        time_N, event_N, groups_N = self._known(truth, groups)
        pictures = [
            risk_groups(predicted[column][known], time_N, event_N == cause, groups_N, self.unit, title)
            for cause, (column, title) in enumerate(zip(self._risks(), self._titles(), strict=True), start=1)
        ]
        if self._column(self.grid[0]) in predicted:
            pictures += [
                calibration_at(at, predicted[self._column(at)][known], time_N, event_N > 0, self.unit)
                for at in self.times
                if at < time_N.max()
            ]
        return pictures

    def _logits(self, outputs: Tensor, group_B: Tensor) -> Tensor:
        """[B, C, T] of the baseline of each patient's group and the head."""
        baseline = self.baseline.to(outputs.dtype)[self._place(group_B)]
        return baseline + outputs.view(baseline.shape)

    def _place(self, group_B: Tensor) -> Tensor:
        """Row of each group in `baseline`; the last, of all training patients, for a group that none of them had."""
        same_BG = group_B[:, None] == self.group_G
        return torch.where(same_BG.any(dim=1), same_BG.long().argmax(dim=1), len(self.group_G))

    def _known(self, endpoints: Truth, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known = self.labelled(endpoints)
        return endpoints[self.name]["time"][known], endpoints[self.name]["event"][known], groups[known].astype(str)

    def _risks(self) -> list[str]:
        return ["risk"] if len(self.causes) == 1 else [f"risk/{cause}" for cause in self.causes]

    def _titles(self) -> list[str]:
        return [self.name] if len(self.causes) == 1 else [f"{self.name}: {cause}" for cause in self.causes]

    def _column(self, at: float) -> str:
        return f"survival_probability/{at:g}"

    def _columns(self, free_NT: np.ndarray) -> dict[str, np.ndarray]:
        return {self._column(at): free_NT[:, t] for t, at in enumerate(self.grid)}
