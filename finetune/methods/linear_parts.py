"""The parts of a linear model, for survival one a group: what each reads, what was fitted, and baseline hazards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from finetune.methods.inputs import Inputs
from foundation.config import Config
from foundation.data.preprocessing import Preprocessing
from foundation.linear.fitted import Fitted
from foundation.linear.learners import LEARNERS
from foundation.metrics.survival_curves import breslow


@dataclass(frozen=True, eq=False)
class BaselineHazard:
    """How often an event happens to those whose log hazard is 0: Breslow's estimate, which steps at each event.

    Attributes:
        times: Of the events in training, ascending, in the unit of the endpoint.
        cumulated: Hazard cumulated up to and at each of them.
    """

    times: np.ndarray
    cumulated: np.ndarray

    @classmethod
    def of(cls, risk_N: np.ndarray, time_N: np.ndarray, event_N: np.ndarray) -> BaselineHazard:
        """Estimate it from log hazards, times, and events (1 happened, 0 censored) of training patients, [N] each."""
        times = np.unique(time_N[event_N == 1])
        return cls(times, breslow(risk_N, time_N, event_N, times))

    def at(self, times: np.ndarray) -> np.ndarray:
        """Cumulated hazard [T] at any times [T]; after the last event it stays as it is."""
        return np.append(0.0, self.cumulated)[np.searchsorted(self.times, times, side="right")]


class PartDocument(Config):
    """What is written of a part beside its arrays.

    Attributes:
        group: Of whose patients it speaks.
        preprocessing: Of its inputs; None where there are none, or where they read nothing.
        penalty: Ending of a column to the penalty of its fit.
    """

    group: str
    preprocessing: Preprocessing | None
    penalty: dict[str, float]


@dataclass(frozen=True, eq=False)
class Part:
    """What was learned from the training patients of one group, or from all.

    All but `inputs` go by the ending of the column that they are about: none, or ``/relapse`` where there are several
    kinds of event.

    Attributes:
        inputs: What is read of a record; None where nothing was fitted.
        fitted: The models; one that had too few events is lacking, and its patients are alike.
        penalty: Under which each was fitted.
        hazards: For survival, the baseline hazard of each, fitted or not.
    """

    inputs: Inputs | None = None
    fitted: Mapping[str, Fitted] = field(default_factory=dict)
    penalty: Mapping[str, float] = field(default_factory=dict)
    hazards: Mapping[str, BaselineHazard] = field(default_factory=dict)

    def document(self, group: str) -> PartDocument:
        """What is written beside `state`."""
        preprocessing = self.inputs.preprocessing if self.inputs is not None else None
        return PartDocument(group=group, preprocessing=preprocessing, penalty=dict(self.penalty))

    def state(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        held = {} if self.inputs is None else {"inputs": self.inputs.state()}
        held |= {f"fitted.{ending}": fitted.state() for ending, fitted in self.fitted.items()}
        held |= {f"hazard.{ending}": vars(hazard) for ending, hazard in self.hazards.items()}
        return {f"{owner}.{name}": array for owner, arrays in held.items() for name, array in arrays.items()}

    @classmethod
    def of(cls, document: PartDocument, state: Mapping[str, np.ndarray], kind: str) -> Part:
        """The inverse of `document` and `state`.

        Args:
            document: As of `document`.
            state: As of `state`.
            kind: Of the endpoint.

        Raises:
            KeyError: An array is missing.
        """
        owners = {name.rpartition(".")[0]: {} for name in state}
        for name, array in state.items():
            owner, _, short = name.rpartition(".")
            owners[owner][short] = array
        fitted = LEARNERS[kind].fitted
        return cls(
            Inputs.of(document.preprocessing, owners["inputs"]) if document.penalty else None,
            {ending: fitted.of(owners[f"fitted.{ending}"]) for ending in document.penalty},
            document.penalty,
            {
                owner.removeprefix("hazard."): BaselineHazard(**arrays)
                for owner, arrays in owners.items()
                if owner.startswith("hazard.")
            },
        )
