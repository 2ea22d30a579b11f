"""A linear method as a function of omics values; its attributions are exact: slope times distance from the baseline.

Slopes are those of the scores as the task itself makes them of what the model predicts, so that no form of a fit has to
be known here. Scores are linear in inputs (a log odds, a log hazard, a number); where a probability is so small that
the task holds it back they bend, and the completeness error tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from finetune.explain.methods import Columns, ExplainedMethod, Records, Weighted
from finetune.kept_predictor import KeptPredictor
from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import Block
from finetune.methods.linear_model import LinearModel
from finetune.methods.linear_parts import Part
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align_part

STEP = 1e-3
"""Of an input, for a slope."""

Predicted = dict[str, np.ndarray]


class ExplainedLinear(ExplainedMethod):
    """A linear baseline of the stack.

    Args:
        models: Endpoint to its model.
        cohort: That is explained.
        weighted: Its share of scores.
    """

    def __init__(self, models: Mapping[str, LinearModel], cohort: PreparedCohort, weighted: Weighted) -> None:
        endpoints = [endpoint for task in weighted.tasks.values() for endpoint in task.endpoints]
        self.models = {endpoint: models[endpoint] for endpoint in dict.fromkeys(endpoints)}
        self.cohort, self.weighted = cohort, weighted
        parts = [part for model in self.models.values() for part in [*model.parts.values(), model.others]]
        found = [part.inputs.preprocessing for part in parts if part.inputs is not None]
        self.aligned = [align_part(preprocessing, cohort) for preprocessing in found if preprocessing is not None]

    def read(self, rows: np.ndarray, columns: Columns) -> LinearRecords:
        """See `ExplainedMethod.read`."""
        return LinearRecords(self, rows, columns)

    def randomised(self, seed: int) -> ExplainedLinear:
        """See `ExplainedMethod.randomised`."""
        random = np.random.default_rng(seed)
        models = {
            endpoint: replace(model, parts={group: _in_disorder(part, random) for group, part in model.parts.items()})
            for endpoint, model in self.models.items()
        }
        return ExplainedLinear(models, self.cohort, self.weighted)


def _in_disorder(part: Part, random: np.random.Generator) -> Part:
    """A part whose weights of inputs change places, the same for all classes; components do so too."""
    fitted = {}
    for ending, fit in part.fitted.items():
        state = fit.state()
        weights = next(name for name in state if name.startswith("weights"))
        order = random.permutation(state[weights].shape[-1])
        fitted[ending] = type(fit).of(state | {weights: state[weights][..., order]})
    if part.inputs is None:
        return part
    components_EP = random.permuted(part.inputs.components_EP, axis=1)
    return replace(part, fitted=fitted, inputs=replace(part.inputs, components_EP=components_EP))


class LinearRecords(Records):
    """See `Records`.

    Args:
        method: The baseline.
        rows: Of the cohort.
        columns: Of attributions.
    """

    def __init__(self, method: ExplainedLinear, rows: np.ndarray, columns: Columns) -> None:
        self.method, self.rows, self.columns = method, rows, columns
        images = ImageFeatures(method.cohort)
        self._read: dict[str, list[tuple[Part, np.ndarray, dict[str, Block]]]] = {}
        moved_BP = np.zeros((len(rows), len(columns)), dtype=bool)
        for endpoint, model in method.models.items():
            self._read[endpoint] = []
            for part, here in model.by_part(method.cohort, rows):
                blocks = {} if part.inputs is None else part.inputs.blocks(method.cohort, rows[here], images)
                self._read[endpoint].append((part, here, blocks))
                for name, known, places in self._omics(part):
                    moved_BP[np.ix_(here, places)] |= blocks[name][0][:, known] != 0
        self.moved_BP = torch.from_numpy(moved_BP)

    def _omics(self, part: Part) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Omics modalities that a part reads and the cohort has; features of it that are known, and their columns."""
        if part.inputs is None or part.inputs.preprocessing is None:
            return []
        aligned = align_part(part.inputs.preprocessing, self.method.cohort)
        found = []
        for name in part.inputs.preprocessing.omics():
            if name in aligned.positions:
                places = self.columns.places(aligned, name)
                found.append((name, np.flatnonzero(places >= 0), places[places >= 0]))
        return found

    def scores(self, keep_BP: Tensor | None = None) -> Tensor:
        """See `Records.scores`."""
        kept_BP = None if keep_BP is None else keep_BP.numpy()

        def change(part: Part, here: np.ndarray, blocks: dict[str, Block]) -> dict[str, Block]:
            changed = dict(blocks)
            for name, known, places in self._omics(part) if kept_BP is not None else ():
                assert kept_BP is not None
                values_NF = blocks[name][0].copy()
                values_NF[:, known] *= kept_BP[np.ix_(here, places)]
                changed[name] = values_NF, blocks[name][1]
            return changed

        return self._scores(change)

    def of_subsets(self, subsets: Sequence[tuple[str, ...]]) -> Tensor:
        """See `Records.of_subsets`."""
        found = []
        for subset in subsets:

            def change(_: Part, __: np.ndarray, blocks: dict[str, Block], seen: Sequence[str] = subset):
                return {name: (v, o if name in seen else np.zeros_like(o)) for name, (v, o) in blocks.items()}

            found.append(self._scores(change))
        return torch.stack(found, dim=1)

    def _scores(self, change) -> Tensor:
        predicted: dict[str, Predicted] = {}
        for endpoint, read in self._read.items():
            parts = []
            for part, here, blocks in read:
                x_ND = None if part.inputs is None else part.inputs.of_blocks(change(part, here, blocks), len(here))
                parts.append((here, self._predict(endpoint, part, x_ND, len(here))))
            predicted[endpoint] = {name: _joined(parts, name, len(self.rows)) for name in parts[0][1]}
        return self._of_predicted(predicted)

    def _of_predicted(self, predicted: Mapping[str, Predicted]) -> Tensor:
        tasks = self.method.weighted.tasks
        return self.method.weighted(
            {name: task.outputs_of({e: predicted[e] for e in task.endpoints}) for name, task in tasks.items()}
        )

    def _predict(self, endpoint: str, part: Part, x_ND: np.ndarray | None, count: int) -> Predicted:
        """What a part says of its inputs; of a kind of event that it knows nothing of, no risk."""
        model = self.method.models[endpoint]
        said = {} if x_ND is None else {e: fitted(x_ND) for e, fitted in part.fitted.items()}
        if model.declared["kind"] != "survival":
            return {name: values for of in said.values() for name, values in of.items()}
        return {f"risk{e}": said[e]["risk"] if e in said else np.zeros(count) for e in model.endings}

    def attributions(self, steps: int) -> Tensor:
        """See `Records.attributions`; exact whatever the steps."""
        total_BSP = np.zeros((len(self.rows), len(self.method.weighted.scores), len(self.columns)))
        for endpoint, read in self._read.items():
            for part, here, blocks in read:
                if part.inputs is None:
                    continue
                slopes = part.inputs.slopes(self._weights(endpoint, part))
                for name, known, places in self._omics(part):
                    # What is not observed is 0, as the baseline is.
                    values_NF = blocks[name][0][:, known]
                    total_BSP[np.ix_(here, np.arange(total_BSP.shape[1]), places)] += (
                        values_NF[:, None] * slopes[name][known].T
                    )
        return torch.from_numpy(total_BSP)

    def _weights(self, endpoint: str, part: Part) -> np.ndarray:
        """[D, S] slopes of scores over the inputs of an endpoint's part."""
        assert part.inputs is not None
        count = len(part.inputs.mean_D)
        steps = np.concatenate([np.zeros((1, count)), STEP * np.eye(count)])
        predicted = {}
        for other, read in self._read.items():
            own = part if other == endpoint else read[0][0]
            width = 0 if own.inputs is None else len(own.inputs.mean_D)
            x_ND = steps if other == endpoint else np.zeros((len(steps), width))
            predicted[other] = self._predict(other, own, x_ND, len(steps))
        scores = self._of_predicted(predicted).numpy()
        return (scores[1:] - scores[0]) / STEP


def _joined(parts: Sequence[tuple[np.ndarray, Predicted]], name: str, count: int) -> np.ndarray:
    first = parts[0][1][name]
    whole = np.zeros((count, *first.shape[1:]))
    for here, said in parts:
        whole[here] = said[name]
    return whole


def linear_methods(kept: KeptPredictor, cohort: PreparedCohort) -> dict[str, ExplainedLinear]:
    """The linear models of a stack."""
    return {
        name: ExplainedLinear(models, cohort, Weighted(kept, name, torch.device("cpu")))
        for name, models in kept.linear.items()
    }
