"""Attributions of a whole stack, batch by batch: the sums of those of its methods, with how complete they are.

Scores are linear in outputs, and a stack is a weighted sum of outputs, so its attributions are exactly the weighted sum
of its methods' attributions. How far they are from adding up to the score less that at the baseline is computed for
every record; where it is too far, integrated gradients take more steps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.explain.linear import linear_methods
from finetune.explain.methods import Columns, ExplainedMethod, Records, Score, scores_of
from finetune.explain.networks import network_methods
from finetune.kept_predictor import KeptPredictor
from foundation.cohort.store import PreparedCohort
from foundation.progress import Progress, Silent

BATCH = 32
"""Records at a time."""

MOST_NUMBERS = 5_000_000
"""Attributions held at a time, which bounds the batch where there are many features and scores."""

STEPS = (12, 24, 48, 96, 192)
"""Of integrated gradients: more are taken until the error is small enough, or there are no more."""

TOLERANCE = 0.01
"""Completeness error, in spreads of the score, up to which no more steps are taken."""

SMALLEST_SPREAD = 1e-6


class StackRecords:
    """Some records, as all methods of a stack read them.

    Args:
        read: By each method.
    """

    def __init__(self, read: Sequence[Records]) -> None:
        self._read = read

    @property
    def moved_BP(self) -> Tensor:
        """Bool, values that some method does not find at the baseline."""
        return torch.stack([records.moved_BP for records in self._read]).any(dim=0)

    def scores(self, keep_BP: Tensor | None = None) -> Tensor:
        """[B, S] float64, with values brought to the baseline that are not kept."""
        return functools.reduce(torch.add, (records.scores(keep_BP) for records in self._read))

    def of_subsets(self, subsets: Sequence[tuple[str, ...]]) -> Tensor:
        """[B, V, S] float64, where only these modalities may be seen."""
        return functools.reduce(torch.add, (records.of_subsets(subsets) for records in self._read))

    def attributions(self, steps: int) -> Tensor:
        """[B, S, P] float64."""
        return functools.reduce(torch.add, (records.attributions(steps) for records in self._read))


@dataclass(frozen=True)
class Attributed:
    """Attributions of some records.

    Attributes:
        rows: [B] of the cohort.
        attribution_BSP: Float32; exactly 0 where not observed.
        score_BS, baseline_BS: The scores of the records, and with all values at the baseline.
        error_BS: Completeness error, in spreads of the score.
        steps: That were taken.
    """

    rows: np.ndarray
    attribution_BSP: np.ndarray
    score_BS: np.ndarray
    baseline_BS: np.ndarray
    error_BS: np.ndarray
    steps: int


@dataclass(frozen=True, eq=False)
class Explainer:
    """A stack as a function of the omics values of one cohort.

    Attributes:
        methods: Of the stack.
        columns: Of attributions.
        scores: That are explained, S of them.
    """

    methods: Sequence[ExplainedMethod]
    columns: Columns
    scores: list[Score]

    @classmethod
    def of(cls, kept: KeptPredictor, cohort: PreparedCohort) -> Explainer:
        """The stack that a run keeps.

        Raises:
            DataError: The cohort was prepared otherwise, or shares too little with what a method knows.
        """
        methods = [*network_methods(kept, cohort).values(), *linear_methods(kept, cohort).values()]
        aligned = [one for method in methods for one in method.aligned]
        return cls(methods, Columns.of(aligned) if aligned else Columns(cohort, {}), scores_of(kept))

    def randomised(self, seed: int) -> Explainer:
        """The same with the weights of all methods in disorder."""
        return Explainer([method.randomised(seed) for method in self.methods], self.columns, self.scores)

    def read(self, rows: np.ndarray) -> StackRecords:
        """Some records, at most a batch of them."""
        return StackRecords([method.read(rows, self.columns) for method in self.methods])

    def batches(
        self, rows: np.ndarray, progress: Progress | None = None, label: str = "explaining"
    ) -> Iterator[tuple[np.ndarray, StackRecords]]:
        """Rows and what is read of them, batch by batch; `progress` is told of records."""
        progress = progress or Silent()
        progress.start(label, len(rows), "records")
        for part in self.split(rows):
            yield part, self.read(part)
            progress.advance(len(part))
        progress.finish()

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in batches."""
        size = max(1, min(BATCH, MOST_NUMBERS // max(1, len(self.columns) * len(self.scores))))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def spread(self, rows: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """[S] standard deviation of each score over records."""
        found = [records.scores() for _, records in self.batches(rows, progress, "scoring")]
        return np.maximum(torch.cat(found).std(dim=0, correction=0).numpy(), SMALLEST_SPREAD)

    def attribute(self, rows: np.ndarray, records: StackRecords, spread_S: np.ndarray) -> Attributed:
        """Attributions of records, with as many steps as they need."""
        score_BS = records.scores()
        baseline_BS = records.scores(torch.zeros(len(rows), len(self.columns), dtype=torch.bool))

        def taken(steps: int) -> Attributed:
            attribution_BSP = records.attributions(steps)
            gap_BS = attribution_BSP.sum(dim=2) - (score_BS - baseline_BS)
            error_BS = gap_BS.abs().numpy() / spread_S
            of_float = attribution_BSP.float().numpy()
            return Attributed(rows, of_float, score_BS.numpy(), baseline_BS.numpy(), error_BS, steps)

        found = taken(STEPS[0])
        for steps in STEPS[1:]:
            if found.error_BS.max(initial=0) <= TOLERANCE:
                break
            found = taken(steps)
        return found
