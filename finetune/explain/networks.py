"""A network as a function of omics values, and integrated gradients of its scores at these values.

Integrated gradients (Sundararajan et al. 2017): the gradient of a score along the straight line from the baseline to
the record, averaged, times what the value is from the baseline. It is taken at the values, not at the tokens: a token
is identity, modality and a learned function of the value together, and heads read values beside the towers, so that
only a gradient at the values covers tower and heads at once and is exact for every tokenizer. The average is taken by
Gauss and Legendre's rule. All scores share one forward of each step, and image towers run once for all steps, as no
omics value changes what they see; therefore it is written out here (a test holds it against captum's).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.explain.methods import Columns, ExplainedMethod, Records, Weighted
from finetune.kept_predictor import KeptPredictor
from finetune.methods.adapted import EVERYTHING, Adapted
from finetune.predictor import Predictor
from foundation.cohort.store import PreparedCohort
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset
from foundation.data.sampler import BatchKey
from foundation.model.towers.base import ImageTower
from foundation.model.view import FUSED, View


class ExplainedNetwork(ExplainedMethod):
    """A network of the stack.

    Args:
        predictor: The network; its weights stay as they are, and are no longer trained.
        cohort: That is explained.
        weighted: Its share of scores.
    """

    def __init__(self, predictor: Predictor, cohort: PreparedCohort, weighted: Weighted) -> None:
        self.predictor, self.cohort, self.weighted = predictor, cohort, weighted
        self.adapted = predictor.adapted.eval().requires_grad_(False)
        self.device = next(self.adapted.parameters()).device
        self.whole = predictor.align(cohort)
        self.aligned = [self.whole]
        # A damaged record is refused: another in its place would be explained under its name.
        self._data = CohortDataset(self.whole, stop_above=0.0)

    def read(self, rows: np.ndarray, columns: Columns) -> NetworkRecords:
        """See `ExplainedMethod.read`."""
        rows = np.array(rows, dtype=np.int64)
        batch = self._data.__getitems__(BatchKey(rows, np.zeros_like(rows)))
        return NetworkRecords(self, batch.to(self.device), columns)

    def randomised(self, seed: int) -> ExplainedNetwork:
        """See `ExplainedMethod.randomised`; components that heads read are weights too."""
        adapted = copy.deepcopy(self.adapted)
        random = torch.Generator().manual_seed(seed)
        learned = dict(adapted.named_parameters())
        learned |= {name: buffer for name, buffer in adapted.reading.named_buffers() if name.startswith("basis")}
        with torch.no_grad():
            for tensor in learned.values():
                order = torch.randperm(tensor.numel(), generator=random).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].view_as(tensor))
        return ExplainedNetwork(replace(self.predictor, adapted=adapted), self.cohort, self.weighted)


class NetworkRecords(Records):
    """See `Records`.

    Args:
        method: The network.
        batch: Of records, on its device.
        columns: Of attributions.
    """

    def __init__(self, method: ExplainedNetwork, batch: Batch, columns: Columns) -> None:
        self.method, self.batch = method, batch
        read = [name for name in batch.omics if name in method.whole.positions]
        self._sizes = {name: batch.omics[name].shape[1] for name in read}
        places_F = np.concatenate([columns.places(method.whole, name) for name in read] or [np.zeros(0, np.int64)])
        # A feature that the cohort lacks is not observed, and has nothing to bring to any column.
        self._known = torch.from_numpy(np.flatnonzero(places_F >= 0)).to(batch.device)
        self._places = torch.from_numpy(places_F[places_F >= 0]).to(batch.device)
        self._width = len(columns)
        parts = [batch.omics[name] for name in read]
        self.x_BF = torch.cat(parts, dim=1) if parts else torch.zeros(len(batch), 0, device=batch.device)
        self.moved_BP = self._to_columns(self.x_BF).cpu() != 0
        self._towers = {name: _Once(t) for name, t in method.adapted.model.towers.items() if isinstance(t, ImageTower)}

    def scores(self, keep_BP: Tensor | None = None) -> Tensor:
        """See `Records.scores`."""
        x_BF = self.x_BF
        if keep_BP is not None:
            x_BF = torch.zeros_like(x_BF)
            x_BF[:, self._known] = self.x_BF[:, self._known] * keep_BP.to(x_BF.device)[:, self._places]
        with torch.no_grad(), self._images_once():
            return self._scores(x_BF).cpu()

    def of_subsets(self, subsets: Sequence[tuple[str, ...]]) -> Tensor:
        """See `Records.of_subsets`; towers run once for subsets that show them the same."""
        views = {subset: View(FUSED, subset) for subset in subsets}
        with torch.no_grad(), self._images_once():
            outputs = self.method.adapted(self.batch, views)
        return torch.stack([self.method.weighted(outputs[subset]).cpu() for subset in subsets], dim=1)

    def attributions(self, steps: int) -> Tensor:
        """See `Records.attributions`."""
        points, weights = np.polynomial.legendre.leggauss(steps)
        total = torch.zeros(len(self.x_BF), len(self.method.weighted.scores), self.x_BF.shape[1], dtype=torch.float64)
        total = total.to(self.x_BF.device)
        used = [s for s, score in enumerate(self.method.weighted.scores) if score.task in self.method.weighted.weights]
        with self._images_once():
            for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
                x_BF = (self.x_BF * float(point)).requires_grad_()
                scores_BS = self._scores(x_BF)
                # A network that reads scans alone owes omics values nothing.
                for s in used if scores_BS.requires_grad else ():
                    # A record's scores depend on its own values alone, so one sum gives the gradients of all.
                    [slope_BF] = torch.autograd.grad(
                        scores_BS[:, s].sum(), x_BF, retain_graph=s != used[-1], materialize_grads=True
                    )
                    total[:, s] += weight * slope_BF
        return self._to_columns(total * self.x_BF[:, None]).cpu()

    def _scores(self, x_BF: Tensor) -> Tensor:
        omics = dict(zip(self._sizes, x_BF.split([*self._sizes.values()], dim=1), strict=True))
        batch = replace(self.batch, omics={**self.batch.omics, **omics})
        return self.method.weighted(self.method.adapted(batch)[EVERYTHING])

    def _to_columns(self, of_F: Tensor) -> Tensor:
        """[..., F] to [..., P]; features that the cohort lacks are left out."""
        of_P = of_F.new_zeros(*of_F.shape[:-1], self._width)
        return of_P.index_copy(-1, self._places, of_F[..., self._known])

    @contextmanager
    def _images_once(self) -> Iterator[None]:
        """Image towers answer with what they have made of the batch."""
        with _in_place(self.method.adapted, self._towers):
            yield


class _Once(nn.Module):
    """An image tower that runs once for the records of one batch that have an image, and once for a dummy row."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self._tower, self._made = [tower], {}
        self.width = tower.width

    def forward(self, x_PCXYZ: Tensor, *others: Any) -> Any:
        if len(x_PCXYZ) not in self._made:
            with torch.no_grad():
                self._made[len(x_PCXYZ)] = self._tower[0](x_PCXYZ, *others)
        return self._made[len(x_PCXYZ)]


@contextmanager
def _in_place(adapted: Adapted, towers: Mapping[str, nn.Module]) -> Iterator[None]:
    own = {name: adapted.model.towers[name] for name in towers}
    adapted.model.towers.update(towers)
    try:
        yield
    finally:
        adapted.model.towers.update(own)


def network_methods(kept: KeptPredictor, cohort: PreparedCohort) -> dict[str, ExplainedNetwork]:
    """The networks of a stack."""
    found = {}
    for name, predictor in kept.networks.items():
        device = next(predictor.adapted.parameters()).device
        found[name] = ExplainedNetwork(predictor, cohort, Weighted(kept, name, device))
    return found
