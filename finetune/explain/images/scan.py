"""One scan of one record, as the networks of a stack read it: their share of every score, a function of its voxels.

All else of the record, omics and other scans, stays as it is. A place of the scan is taken away by showing the mean of
the scan's foreground there: tissue without structure. The background stays background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.explain.images.cells import Cells
from finetune.explain.methods import Columns, Score
from finetune.explain.networks import ExplainedNetwork, NetworkRecords
from finetune.methods.adapted import EVERYTHING
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset
from foundation.data.sampler import BatchKey
from foundation.model.towers.base import ImageTower, Tokens

FOREGROUND = 0.1
"""Share of a channel's range above its lowest voxel from which on a voxel is foreground."""

MOST_VOXELS = 2**24
"""Of copies of a scan that are read at a time."""


class Scan:
    """A record's scan of one modality.

    Args:
        networks: Of the stack, that read it; all with the same preprocessing of scans and the same grid of tokens.
        name: Of the modality.
        row: Of the cohort.

    Attributes:
        x_CXYZ: The scan, standardised.
        plain_CXYZ: What is shown where it is taken away.
        cells: Of tokens.
        foreground_XYZ: Bool, tissue in any channel.
        tissue_G: Bool [*grid], cells in which something can be taken away.
        scores: That the networks have a share in, S of them.
    """

    def __init__(self, networks: Mapping[str, ExplainedNetwork], name: str, row: int) -> None:
        self.networks, self.name, self.row = networks, name, row
        rows = np.array([row])
        self._batches = {
            key: CohortDataset(network.whole, stop_above=0.0).__getitems__(BatchKey(rows, np.zeros_like(rows)))
            for key, network in networks.items()
        }
        self._made: dict[tuple[str, str], Any] = {}
        first = next(iter(networks))
        self.scores: list[Score] = networks[first].weighted.scores
        self.x_CXYZ = self._batches[first].images[name][0]
        self.channels_C = self._batches[first].channels[name][0]
        self.cells = Cells.of(self.tower(first), self.x_CXYZ.shape[1:])
        foreground_CXYZ = _foreground(self.x_CXYZ, self.channels_C)
        self.plain_CXYZ = _plain(self.x_CXYZ, foreground_CXYZ)
        self.foreground_XYZ = foreground_CXYZ.any(dim=0)
        self.tissue_G = self.cells.sums(self.foreground_XYZ.double()) > 0

    def tower(self, network: str) -> ImageTower:
        """That reads the scan in a network."""
        return tower_of(self.networks[network], self.name)

    def read(self, x_KCXYZ: Tensor) -> Tensor:
        """[K, S] float64, the networks' share of scores, had the scan been each of these; gradients flow through."""
        return torch.stack([self.of_network(key, x_KCXYZ) for key in self.networks]).sum(dim=0)

    def of_network(self, key: str, x_KCXYZ: Tensor) -> Tensor:
        """[K, S] the share of one network, on the CPU."""
        network = self.networks[key]
        batch = _copies(self._batches[key], len(x_KCXYZ)).to(network.device)
        batch = replace(batch, images={**batch.images, self.name: x_KCXYZ.to(network.device)})
        with self._others_once(key):
            return network.weighted(network.adapted(batch)[EVERYTHING]).cpu()

    def taken(self, keep_KG: Tensor) -> Tensor:
        """[K, S] without gradients: scores where only these cells are shown as they are."""
        size = max(1, MOST_VOXELS // self.x_CXYZ.numel())
        with torch.no_grad():
            return torch.cat([self.read(self.shown(part)) for part in keep_KG.split(size)])

    def crossed(self, keep_KG: Tensor, keep_JP: Tensor, columns: Columns) -> Tensor:
        """[J, K, S] without gradients: scores where only these omics values and only these cells are as they are.

        Values that are not kept are at their baselines, as in `Records.scores`.
        """
        size = max(1, MOST_VOXELS // self.x_CXYZ.numel())
        return torch.cat([self._crossed(part, keep_JP, columns) for part in keep_KG.split(size)], dim=1)

    def _crossed(self, keep_KG: Tensor, keep_JP: Tensor, columns: Columns) -> Tensor:
        total: Tensor | None = None
        for key, network in self.networks.items():
            batch = _copies(self._batches[key], len(keep_KG))
            batch = replace(batch, images={**batch.images, self.name: self.shown(keep_KG)})
            # It reads the scan once for all values.
            records = NetworkRecords(network, batch.to(network.device), columns)
            with ExitStack() as stack:
                for tower in network.adapted.model.towers.values():
                    if not isinstance(tower, ImageTower):
                        stack.enter_context(instead(tower, _of_first(tower.forward)))
                found = torch.stack([records.scores(keep_P.expand(len(keep_KG), -1)) for keep_P in keep_JP])
            total = found if total is None else total + found
        assert total is not None
        return total

    def moved(self) -> Tensor:
        """[S] scores less those of the plain scan."""
        every = torch.ones(1, *self.cells.grid, dtype=torch.bool)
        whole, plain = self.taken(torch.cat([every, ~every]))
        return whole - plain

    def shown(self, keep_KG: Tensor) -> Tensor:
        """[K, C, *shape] the scan with cells taken away that are not kept."""
        keep = self.cells.blocks(keep_KG)[:, None]
        return torch.where(keep, self.x_CXYZ, self.plain_CXYZ)

    @contextmanager
    def _others_once(self, key: str) -> Iterator[None]:
        """Towers that do not read the scan answer with what they once made of the record."""
        model = self.networks[key].adapted.model
        with ExitStack() as stack:
            for name, tower in model.towers.items():
                if tower is not self.tower(key):
                    stack.enter_context(instead(tower, self._once(key, name, tower.forward)))
            yield

    def _once(self, key: str, tower: str, forward: Callable[..., Tokens]) -> Callable[..., Tokens]:
        def kept(*x: Any) -> Tokens:
            if (key, tower) not in self._made:
                with torch.no_grad():
                    self._made[key, tower] = forward(*x)
            return self._made[key, tower]

        return _of_first(kept)


def _of_first(forward: Callable[..., Tokens]) -> Callable[..., Tokens]:
    """A tower that reads copies of one record reads the first of them."""

    def answer(x: Any, *others: Any) -> Tokens:
        count = len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))
        made = forward(*(_mapped(part, lambda tensor: tensor[:1]) for part in (x, *others)))
        return Tokens(
            pooled_BD=_many(made.pooled_BD, count),
            tokens_BTD=_many(made.tokens_BTD, count),
            real_BT=_many(made.real_BT, count),
            modality_T=made.modality_T if made.modality_T.ndim == 1 else _many(made.modality_T, count),
            extras=_many(made.extras, count),
        )

    return answer


def tower_of(network: ExplainedNetwork, name: str) -> ImageTower:
    """The tower of a network that reads an image modality."""
    model = network.adapted.model
    [tower] = [model.towers[s.name] for s in model.specs if s.kind == "image" and name in s.modalities]
    assert isinstance(tower, ImageTower)
    return tower


@contextmanager
def instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A module answers otherwise meanwhile; what it is stays what it is."""
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


def _foreground(x_CXYZ: Tensor, channels_C: Tensor) -> Tensor:
    """Bool [C, *shape]: neither background nor in an absent channel."""
    x_CV = x_CXYZ.flatten(1)
    low_C, high_C = x_CV.amin(dim=1), x_CV.amax(dim=1)
    foreground_CV = x_CV > (low_C + FOREGROUND * (high_C - low_C))[:, None]
    return (foreground_CV & channels_C[:, None]).view_as(x_CXYZ)


def _plain(x_CXYZ: Tensor, foreground_CXYZ: Tensor) -> Tensor:
    axes = [*range(1, x_CXYZ.ndim)]
    count_C = foreground_CXYZ.sum(dim=axes, keepdim=True).clamp(min=1)
    mean_C = torch.where(foreground_CXYZ, x_CXYZ, 0).sum(dim=axes, keepdim=True) / count_C
    return torch.where(foreground_CXYZ, mean_C, x_CXYZ)


def _copies(batch: Batch, count: int) -> Batch:
    """A batch of one record as one of many copies of it."""
    names = [f.name for f in fields(batch) if f.name not in ("modalities", "quarantined", "host")]
    return replace(batch, host=None, **{name: _many(getattr(batch, name), count) for name in names})


def _many(value: Any, count: int) -> Any:
    if isinstance(value, Sequence):
        return [*value] * count
    return _mapped(value, lambda tensor: tensor.expand(count, *tensor.shape[1:]))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    return {k: _mapped(v, change) for k, v in value.items()} if isinstance(value, Mapping) else value
