"""How unlike the training patients a new one is: a score for each modality, shown only where it sees known faults.

The values of a modality are compared with those of training patients along their principal components, beside these
(what components do not explain), and by how many are at the bounds of scaling; three numbers, whose Mahalanobis
distance is told. Training patients of one half are measured by what was learned on the other. Whether the distance can
be trusted is tried on faults that are made on purpose: genes in another order, values of another unit, another organ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.methods.image_features import cell_means
from finetune.uncertainty.base import State
from foundation.data.alignment import Aligned
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.data.sample import sample
from foundation.data.sampler import BatchKey
from foundation.metrics.class_scores import auroc
from foundation.model.embedding import BATCH
from foundation.model.layers.values import masked

MOST_RECORDS = 2000
"""Training records that are learned from; of more, a sample."""

FEWEST_RECORDS = 40
"""Of them with a modality: of fewer nothing can be said."""

MOST_COMPONENTS = 20

FAR = 2.0
"""Times the distance that one in a hundred training patients exceeds, from which a patient counts as unlike them."""

LEAST_AUROC = 0.9
"""Of every fault that is tried, for the score to be shown."""

GRID = 4
"""Cells of an image along each axis."""

TINY = 1e-6

Fault = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Validity:
    """How well a score sees faults, measured on training patients of whom it learned nothing.

    Attributes:
        auroc: Fault to the probability that a patient with it is further away than one without.
        flagged: Fault to the share of patients with it beyond `FAR`; ``none`` of those without.
        patients: Measured.
    """

    auroc: dict[str, float]
    flagged: dict[str, float]
    patients: int

    @property
    def shown(self) -> bool:
        """Whether it sees every fault."""
        return min(self.auroc.values()) >= LEAST_AUROC

    def document(self) -> dict[str, object]:
        """For a run's files."""
        return {**asdict(self), "shown": self.shown}


@dataclass(frozen=True)
class _Ordinary:
    """What values are ordinary.

    Attributes:
        center: [F] means.
        basis: [F, K] principal components.
        spread: [K] standard deviations along them.
        residual: [F] standard deviations beside them.
        mean, precision: [3] and [3, 3] of the numbers that are told of a patient.
        far: Distance that one in a hundred training patients exceeds.
    """

    center: Tensor
    basis: Tensor
    spread: Tensor
    residual: Tensor
    mean: Tensor
    precision: Tensor
    far: Tensor

    def numbers(self, x_BF: Tensor, seen_BF: Tensor, bound: float) -> Tensor:
        """[B, 3] logarithms of squares along and beside the components, and of the share at the bounds of scaling."""
        seen_B = seen_BF.sum(dim=1).clamp(min=1)
        apart_BF = masked(x_BF - self.center, seen_BF)
        along_BK = apart_BF @ self.basis
        beside_BF = masked(apart_BF - along_BK @ self.basis.T, seen_BF) / self.residual
        # Of what is not observed nothing is known: what is there stands for all.
        share_B = seen_BF.shape[1] / seen_B
        along_B = (along_BK / self.spread).square().mean(dim=1) * share_B**2
        beside_B = beside_BF.square().sum(dim=1) / seen_B
        clipped_B = masked((x_BF.abs() >= bound).to(x_BF), seen_BF).sum(dim=1) / seen_B
        return torch.stack([(along_B + TINY).log(), (beside_B + TINY).log(), (clipped_B + 0.01).log()], dim=1)

    def distance(self, x_BF: Tensor, seen_BF: Tensor, bound: float) -> Tensor:
        """[B] times `far`."""
        apart_B3 = self.numbers(x_BF, seen_BF, bound) - self.mean
        return torch.einsum("bi,ij,bj->b", apart_B3, self.precision, apart_B3).clamp(min=0).sqrt() / self.far


class Novelty:
    """Scores of what a preprocessing knows.

    Args:
        preprocessing: Of the model.

    Attributes:
        validity: Unit, a modality or ``modality/channel``, to how well its score sees faults.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.validity: dict[str, Validity] = {}
        self._ordinary: dict[str, _Ordinary] = {}

    @classmethod
    def learn(cls, aligned: Aligned, rows: np.ndarray) -> Novelty:
        """Learn what is ordinary from training records, and try it on faults."""
        found = cls(aligned.preprocessing)
        rows = sample(aligned.cohort, rows, MOST_RECORDS)
        data, faults = CohortDataset(aligned, rows), _faults(aligned.preprocessing)
        parts: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            batch = data.__getitems__(BatchKey(chosen, np.zeros(len(chosen), dtype=np.int64)))
            for unit, values, seen in found._units(batch):
                for fault, change in {"none": lambda x: x, **faults[unit]}.items():
                    parts.setdefault((unit, fault), []).append(_vector(change(values), seen))
        for unit in dict.fromkeys(unit for unit, _ in parts):
            of_fault = {f: tuple(map(torch.cat, zip(*p, strict=True))) for (u, f), p in parts.items() if u == unit}
            here = of_fault["none"][1].any(dim=1)
            if int(here.sum()) >= FEWEST_RECORDS:
                found._learn(unit, {f: (x[here], seen[here]) for f, (x, seen) in of_fault.items()})
        return found

    def _learn(self, unit: str, of_fault: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        bound = self._bound(unit)
        x_NF, seen_NF = of_fault["none"]
        half_N = torch.arange(len(x_NF)) % 2 == 0
        numbers = torch.empty(len(x_NF), 3)
        learned = {}
        for half in (True, False):
            other, here = half_N != half, half_N == half
            learned[half] = _components(x_NF[other], seen_NF[other])
            numbers[here] = learned[half].numbers(x_NF[here], seen_NF[here], bound)
        measured = {half: _located(one, numbers[half_N != half]) for half, one in learned.items()}
        distances = {}
        for fault, (x, seen) in of_fault.items():
            halves = [one.distance(x[half_N == half], seen[half_N == half], bound) for half, one in measured.items()]
            distances[fault] = torch.cat(halves)
        ordinary_N = distances["none"].numpy()
        areas, flagged = {}, {"none": float((ordinary_N > FAR).mean())}
        for fault, distance_N in ((f, d.numpy()) for f, d in distances.items() if f != "none"):
            both_N = np.concatenate([ordinary_N, distance_N]).astype(np.float64)
            faulty_N = np.repeat([False, True], len(ordinary_N))
            areas[fault] = float(auroc(faulty_N, both_N)(np.ones((1, len(both_N))))[0])
            flagged[fault] = float((distance_N > FAR).mean())
        self.validity[unit] = Validity(areas, flagged, len(ordinary_N))
        self._ordinary[unit] = _located(_components(x_NF, seen_NF), numbers)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Unit to [B] how far each record is, 1 as one in a hundred training patients; NaN where it has none.

        Units whose score is not to be trusted are left out.
        """
        found = {}
        for unit, values, seen in self._units(batch):
            if unit not in self.validity or not self.validity[unit].shown:
                continue
            x_BF, seen_BF = _vector(values, seen)
            distance_B = self._ordinary[unit].distance(x_BF.cpu(), seen_BF.cpu(), self._bound(unit))
            found[unit] = distance_B.masked_fill(~seen_BF.cpu().any(dim=1), torch.nan)
        return found

    def reads(self, preprocessing: Preprocessing) -> bool:
        """Whether batches of that preprocessing hold what is wanted here, perhaps beside other modalities."""
        own = self.preprocessing.modalities
        return all(preprocessing.modalities.get(name) == scaling for name, scaling in own.items())

    def _units(self, batch: Batch) -> list[tuple[str, Tensor, Tensor]]:
        """Omics modalities, values and what was observed; channels of images, voxels and who has them."""
        omics = [(name, batch.omics[name], batch.observed[name]) for name in self.preprocessing.omics()]
        images = [
            (f"{name}/{channel}", batch.images[name][:, c : c + 1], batch.channels[name][:, c])
            for name, scaling in self.preprocessing.images().items()
            for c, channel in enumerate(scaling.channels)
        ]
        return omics + images

    def _bound(self, unit: str) -> float:
        scaling = self.preprocessing.modalities[unit.partition("/")[0]]
        return 0.999 * scaling.clip if isinstance(scaling, OmicsScaling) else np.inf

    def state(self) -> State:
        """What was learned, but for `validity`."""
        return {f"{u}:{key}": v.numpy().copy() for u, one in self._ordinary.items() for key, v in vars(one).items()}

    def restore(self, state: Mapping[str, np.ndarray], validity: Mapping[str, Mapping[str, object]]) -> None:
        """Take over what `state` gave, and the documents of `validity`."""
        for unit, document in validity.items():
            own = {key: value for key, value in document.items() if key != "shown"}
            self.validity[unit] = Validity(**own)  # type: ignore[arg-type]
            names = _Ordinary.__dataclass_fields__
            self._ordinary[unit] = _Ordinary(**{key: torch.from_numpy(state[f"{unit}:{key}"]) for key in names})


def _vector(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """[B, F] float32 of values, and bool of which are there; of images means of cells, and how rough they are."""
    if values.ndim == 2:
        return values.float(), seen
    x_BCXYZ = values.float()
    axes = range(2, x_BCXYZ.ndim)
    cells_BF = cell_means(x_BCXYZ, [GRID] * len(axes)).flatten(1)
    rough = [x_BCXYZ.diff(dim=axis).abs().flatten(1).mean(dim=1) for axis in axes]
    spread_B = x_BCXYZ.flatten(1).std(dim=1)
    x_BF = torch.cat([cells_BF, torch.stack([spread_B, *rough], dim=1)], dim=1)
    return x_BF, seen[:, None].expand_as(x_BF)


def _components(x_NF: Tensor, seen_NF: Tensor) -> _Ordinary:
    """Means, components and spreads of values; no place yet."""
    center_F = masked(x_NF, seen_NF).sum(dim=0) / seen_NF.sum(dim=0).clamp(min=1)
    apart_NF = masked(x_NF - center_F, seen_NF)
    count = max(1, min(MOST_COMPONENTS, len(x_NF) // 5, x_NF.shape[1] // 2))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        _, _, basis_FK = torch.svd_lowrank(apart_NF, q=min(count + 5, *apart_NF.shape), niter=4)
    basis_FK = basis_FK[:, :count].contiguous()
    along_NK = apart_NF @ basis_FK
    beside_NF = masked(apart_NF - along_NK @ basis_FK.T, seen_NF)
    residual_F = (beside_NF.square().sum(dim=0) / seen_NF.sum(dim=0).clamp(min=1)).sqrt()
    floor = 0.1 * residual_F.square().mean().sqrt() + TINY
    nowhere = torch.zeros(3), torch.eye(3), torch.ones(())
    return _Ordinary(center_F, basis_FK, along_NK.std(dim=0) + TINY, residual_F.clamp(min=floor), *nowhere)


def _located(one: _Ordinary, numbers_N3: Tensor) -> _Ordinary:
    """The same, with where training patients are who taught it nothing."""
    apart_N3 = numbers_N3 - numbers_N3.mean(dim=0)
    covariance = apart_N3.T @ apart_N3 / max(1, len(apart_N3) - 1)
    precision = torch.linalg.inv(covariance + 0.05**2 * torch.eye(3))
    distance_N = torch.einsum("ni,ij,nj->n", apart_N3, precision, apart_N3).clamp(min=0).sqrt()
    far = torch.quantile(distance_N, 0.99)
    return _Ordinary(one.center, one.basis, one.spread, one.residual, numbers_N3.mean(dim=0), precision, far)


def _faults(preprocessing: Preprocessing) -> dict[str, dict[str, Fault]]:
    """Unit to faults that its values may have, by name."""
    found: dict[str, dict[str, Fault]] = {}
    for name, scaling in preprocessing.modalities.items():
        if isinstance(scaling, ImageScaling):
            of_images: dict[str, Fault] = {"another organ": _exchange_octants, "reversed intensities": torch.neg}
            found |= {f"{name}/{c}": {**of_images, "noise": _noise} for c in scaling.channels}
        else:
            found[name] = _of_omics(scaling)
    return found


def _of_omics(scaling: OmicsScaling) -> dict[str, Fault]:
    center_F, scale_F = (torch.tensor(values, dtype=torch.float32) for values in (scaling.center, scaling.scale))
    order_F = torch.from_numpy(np.random.default_rng(0).permutation(len(scaling.features)))

    def raw(change: Fault) -> Fault:
        return lambda x: ((change(x * scale_F + center_F) - center_F) / scale_F).clamp(-scaling.clip, scaling.clip)

    faults = {"features in another order": raw(lambda values: values[:, order_F])}
    if scaling.values == "binary":
        return faults | {"yes and no exchanged": raw(lambda values: 1 - values)}
    if any("log" in text for text in (*scaling.transform, scaling.unit)):
        return faults | {"no logarithm taken": raw(lambda values: values.clamp(max=30).exp2() - 1)}
    return faults | {"ten times the unit": raw(lambda values: 10 * values)}


def _exchange_octants(x_BCXYZ: Tensor) -> Tensor:
    """Each half of an axis in the place of the other."""
    axes = tuple(range(2, x_BCXYZ.ndim))
    return x_BCXYZ.roll([x_BCXYZ.shape[axis] // 2 for axis in axes], axes)


def _noise(x_BCXYZ: Tensor) -> Tensor:
    """Voxels of each image in another order: its intensities without its anatomy."""
    flat_BV = x_BCXYZ.flatten(1)
    order_V = torch.from_numpy(np.random.default_rng(0).permutation(flat_BV.shape[1]))
    return flat_BV[:, order_V].reshape(x_BCXYZ.shape)
