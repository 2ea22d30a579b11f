"""The losses of one step: views of all objectives in one forward; whole, or in chunks with the same gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foundation.collectives import max_over_processes, sum_over_processes
from foundation.data.batch import Batch
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import FUSED, TowerOutput, View, parts
from foundation.objectives.base import Loss, Objective, objectives
from foundation.training.stopwatch import Stopwatch
from pretrain.config import PretrainConfig

ViewKey = tuple[str, str]
"""Name of an objective, and of one of its views."""


class Pretraining(nn.Module):
    """A model and the objectives it is trained with.

    Args:
        model: The model.
        objectives: Name to objective.
        weights: Name to the weight of its loss.
        seed: Of the run.
    """

    def __init__(
        self, model: MultimodalModel, objectives: Mapping[str, Objective], weights: Mapping[str, float], seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleDict(dict(objectives))
        self.weights = dict(weights)
        self.seed = seed

    @classmethod
    def of(cls, config: PretrainConfig, model: MultimodalModel) -> Pretraining:
        """The model with the objectives of a config."""
        made = {n: objectives.build(w.loss, model.specs, model.widths()) for n, w in config.objectives.items()}
        return cls(model, made, {n: w.weight for n, w in config.objectives.items()}, config.seed)

    def views(self, batch: Batch) -> dict[ViewKey, View]:
        """The views of all objectives."""
        return {
            (name, view): shown
            for name, objective in self.objectives.items()
            for view, shown in objective.views(batch, self.seed).items()  # type: ignore[operator]
        }

    def freeze_what_no_view_asks_for(self, batch: Batch) -> None:
        """Leave out of training what no loss reads, so that every parameter that is trained has a gradient.

        Args:
            batch: Any; which towers are asked for is the same for all.
        """
        asked = {view.tower for view in self.views(batch).values()}
        for name in () if FUSED in asked else {spec.name for spec in self.model.specs} - asked:
            self.model.towers[name].requires_grad_(False)
            self.model.projections[name].requires_grad_(False)
        if FUSED not in asked:
            self.model.fusion.requires_grad_(False)


@dataclass
class Logged:
    """What a step says of its losses, kept on the device until it is asked for.

    Attributes:
        shares: Name to this process's share of a loss or of a part of one; shares add up over processes.
        facts: Name to what is the same on every process.
        embedding: How long the forward passes of this process's towers take, without the losses.
    """

    shares: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Tensor] = field(default_factory=dict)
    embedding: Stopwatch = field(default_factory=Stopwatch)

    def add(self, name: str, loss: Loss, weight: float, share: float) -> None:
        """Count in an objective's loss."""
        told = {"loss": weight * loss.value.detach(), name: loss.value.detach()}
        told |= {f"{name}/{part}": value for part, value in loss.parts.items()}
        for key, value in told.items():
            self.shares[key] = self.shares.get(key, 0) + share * value
        for fact, value in loss.facts.items():
            key = f"{name}/{fact}"
            self.facts[key] = self.facts.get(key, 0) + share * value

    def values(self) -> dict[str, Tensor]:
        """The same on every process; one collective."""
        summed = sum_over_processes(torch.stack([value.double() for value in self.shares.values()]))
        return {**dict(zip(self.shares, summed, strict=True)), **self.facts}


def _call(compute: Callable[[], Any]) -> Any:
    return compute()


@dataclass(frozen=True)
class Step:
    """The losses of one batch.

    Chunks are the algorithm of Gao et al. 2021 (Scaling deep contrastive learning batch size under memory limited
    setup): embed chunk by chunk without a graph; take the gradient of the losses with respect to the embeddings; embed
    each chunk again, with a scalar whose gradient is its part of the whole. A loss that is a sum over records is made
    of each chunk directly. One chunk needs no embeddings beforehand.

    Attributes:
        pretraining: The model and its objectives.
        forward: Calls what it is given, which is each forward pass with its losses.
        autocast: Gives the precision of forward passes.
        chunk_size: Records to embed at a time; None for all at once.
    """

    pretraining: Pretraining
    forward: Callable[[Callable[[], Any]], Any] = _call
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    chunk_size: int | None = None

    def losses(self, batch: Batch, logged: Logged, share: float = 1.0) -> Iterator[Tensor]:
        """Scalars whose gradients add up to that of the losses of this process's records.

        Every process gives as many, and all towers take part in each, whoever has what.

        Args:
            batch: Records of this process.
            logged: Gets what there is to say.
            share: What the gradient is multiplied by, where the mean of several batches is wanted.
        """
        count = 1
        if self.chunk_size is not None:
            count = max_over_processes(-(-len(batch) // self.chunk_size), batch.device)
        views = self.pretraining.views(batch)
        pull = self._pull_of_embeddings(batch, views, count, logged, share) if count > 1 else None
        for number, (part, shown) in enumerate(parts(views, batch, count)):
            if pull is not None:
                pull.replay(number)
            yield share * self.forward(partial(self._loss_of_part, part, shown, logged, share, pull, number))
        if pull is not None:
            pull.replay(count)

    def _loss_of_part(
        self, batch: Batch, views: Mapping[ViewKey, View], logged: Logged, share: float, pull: _Pull | None, number: int
    ) -> Tensor:
        """The scalar of one chunk, or of all records where there is no pull."""
        with self.autocast():
            outputs = self._outputs(batch, views, logged)
            loss = _anchor(outputs)
            for name, objective in self._objectives(by_record=None if pull is None else True):
                loss = loss + self._loss(name, objective, outputs, batch, logged, share)
        return loss if pull is None else loss + pull.scalar(number, outputs)

    def _outputs(self, batch: Batch, views: Mapping[ViewKey, View], logged: Logged) -> dict[ViewKey, TowerOutput]:
        # DeepSpeed's hooks take the keys of an output for names.
        numbered = {str(number): view for number, view in enumerate(views.values())}
        with logged.embedding.running(batch.device):
            outputs = self.pretraining.model(batch, numbered, seed=self.pretraining.seed)
        return dict(zip(views, outputs.values(), strict=True))

    def _embeddings(self, batch: Batch, views: Mapping[ViewKey, View], logged: Logged) -> list[tuple[Tensor, Tensor]]:
        """z_BD and present_B of each view, without a graph."""
        with torch.no_grad(), self.autocast():
            return [(output.z_BD, output.present_B) for output in self._outputs(batch, views, logged).values()]

    def _objectives(self, by_record: bool | None) -> Iterator[tuple[str, Objective]]:
        """All objectives, or those whose loss is a sum over records, or the others."""
        for name, objective in self.pretraining.objectives.items():
            assert isinstance(objective, Objective)
            if by_record is None or objective.by_record == by_record:
                yield name, objective

    def _loss(
        self,
        name: str,
        objective: Objective,
        outputs: Mapping[ViewKey, TowerOutput],
        batch: Batch,
        logged: Logged,
        share: float,
    ) -> Tensor:
        own = {view: output for (asked_by, view), output in outputs.items() if asked_by == name}
        loss, weight = objective(own, batch), self.pretraining.weights[name]
        logged.add(name, loss, weight, share)
        return weight * loss.value

    def _pull_of_embeddings(
        self, batch: Batch, views: Mapping[ViewKey, View], count: int, logged: Logged, share: float
    ) -> _Pull:
        """Embed without a graph, and take the gradient of what depends on all embeddings at once."""
        states, pieces = [], []
        for part, shown in parts(views, batch, count):
            states.append(_random_state(batch.device))
            pieces.append(self.forward(partial(self._embeddings, part, shown, logged)))
        states.append(_random_state(batch.device))
        embedded = [[torch.cat(parts) for parts in zip(*pairs, strict=True)] for pairs in zip(*pieces, strict=True)]
        leaves = {name: z_BD.requires_grad_() for name, (z_BD, _) in zip(views, embedded, strict=True)}
        whole = {
            name: TowerOutput(z_BD, present_B, views[name])
            for name, (z_BD, present_B) in zip(views, embedded, strict=True)
        }
        total = torch.zeros((), device=batch.device)
        with self.autocast():
            for name, objective in self._objectives(by_record=False):
                total = total + self._loss(name, objective, whole, batch, logged, share)
        sizes = [len(piece[0][0]) for piece in pieces]
        return _Pull(total, leaves, self.pretraining.objectives, sizes, states)


class _Pull:
    """Scalars whose gradients are those of a loss on embeddings that were made without a graph.

    Args:
        loss: Of the embeddings and of what the objectives learn.
        leaves: View to embeddings [B, D] of the whole batch.
        objectives: What the loss has parameters in.
        sizes: Records of each chunk.
        states: Of the random numbers, before each chunk and after the last.
    """

    def __init__(
        self, loss: Tensor, leaves: Mapping[ViewKey, Tensor], objectives: nn.Module, sizes: list[int], states: list
    ) -> None:
        learned = [parameter for parameter in objectives.parameters() if parameter.requires_grad]
        wanted = [*leaves.values(), *learned]
        gradients: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        of_leaves, of_learned = gradients[: len(leaves)], gradients[len(leaves) :]
        self.chunks = {
            name: gradient.split(sizes)
            for name, gradient in zip(leaves, of_leaves, strict=True)
            if gradient is not None
        }
        self.learned = [(p, gradient) for p, gradient in zip(learned, of_learned, strict=True) if gradient is not None]
        self.states = states

    def replay(self, number: int) -> None:
        """Set the random numbers to what they were before a chunk, so that its dropout is the same again."""
        _set_random_state(self.states[number])

    def scalar(self, number: int, outputs: Mapping[ViewKey, TowerOutput]) -> Tensor:
        """Of a chunk; the gradient of what the objectives learn goes with the first."""
        products = [(outputs[name].z_BD * gradient[number]).sum() for name, gradient in self.chunks.items()]
        if number == 0:
            products += [(parameter * gradient).sum() for parameter, gradient in self.learned]
        return torch.stack(products).sum() if products else torch.zeros(())


def _anchor(outputs: Mapping[ViewKey, TowerOutput]) -> Tensor:
    """Zero, with a gradient of zero in every tower, so that one that no loss reads takes part in collectives too."""
    return 0 * torch.stack([output.z_BD.sum() for output in outputs.values()]).sum()


RandomState = tuple[torch.device, Tensor, Tensor | None]


def _random_state(device: torch.device) -> RandomState:
    return device, torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: RandomState) -> None:
    device, of_host, of_device = state
    torch.set_rng_state(of_host)
    if of_device is not None:
        torch.cuda.set_rng_state(of_device, device)
