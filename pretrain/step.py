"""One step's gradient: views, losses, backward; whole, or embedded in chunks with the same result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from foundation.data.batch import Batch
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import TowerOutput, View
from foundation.objectives.base import Loss, Objective, objectives
from pretrain.config import PretrainConfig


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
        parts = {n: objectives.build(w.loss, model.sites, model.widths()) for n, w in config.objectives.items()}
        return cls(model, parts, {n: w.weight for n, w in config.objectives.items()}, config.seed)

    def backward(self, batch: Batch, chunk_size: int | None, share: float = 1.0) -> dict[str, Tensor]:
        """Add this batch's gradient to the parameters.

        Args:
            batch: Records of this process.
            chunk_size: Records to embed at a time; None for all at once.
            share: What the gradient is multiplied by, where the mean of several batches is wanted.

        Returns:
            What to log: ``loss``, and each objective's own.
        """
        logged: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.present_BM.device)
        for name, objective in self.objectives.items():
            views = objective.views(batch, self.seed)  # type: ignore[operator]
            backward = self._backward_whole
            if chunk_size is not None and chunk_size < len(batch):
                backward = self._backward_by_record if objective.needs_tokens else self._backward_cached
            loss = backward(objective, views, batch, share * self.weights[name], chunk_size)  # type: ignore[arg-type]
            total = total + self.weights[name] * loss.value.detach()
            logged[name] = loss.value.detach()
            logged.update({f"{name}/{key}": value for key, value in loss.logged.items()})
        return {"loss": total, **logged}

    def _see(self, objective: Objective, views: Mapping[str, View], batch: Batch) -> dict[str, TowerOutput]:
        tokens = objective.needs_tokens
        return {name: self.model(batch, view, tokens=tokens, seed=self.seed) for name, view in views.items()}

    def _backward_whole(
        self, objective: Objective, views: Mapping[str, View], batch: Batch, weight: float, chunk_size: int | None
    ) -> Loss:
        loss = objective(self._see(objective, views, batch), batch)
        (weight * loss.value).backward()
        return loss

    def _backward_cached(
        self, objective: Objective, views: Mapping[str, View], batch: Batch, weight: float, chunk_size: int
    ) -> Loss:
        """Embed in chunks without a graph, take the gradient of the embeddings, embed again with one.

        Gao et al. 2021, Scaling deep contrastive learning batch size under memory limited setup.
        """
        generators, pieces = [], []
        with torch.no_grad():
            for part, shown in _chunks(batch, views, chunk_size):
                generators.append(_random_state(batch.present_BM.device))
                pieces.append(self._see(objective, shown, part))
        seen = {
            name: TowerOutput(
                torch.cat([piece[name].z_BD for piece in pieces]).requires_grad_(),
                torch.cat([piece[name].present_B for piece in pieces]),
                view,
            )
            for name, view in views.items()
        }
        loss = objective(seen, batch)
        (weight * loss.value).backward()
        after = _random_state(batch.present_BM.device)
        start = 0
        for (part, shown), state in zip(_chunks(batch, views, chunk_size), generators, strict=True):
            _set_random_state(state, batch.present_BM.device)
            again = self._see(objective, shown, part)
            products = [
                (again[name].z_BD * gradient[start : start + len(part)]).sum()
                for name in views
                if (gradient := seen[name].z_BD.grad) is not None
            ]
            if products:
                torch.stack(products).sum().backward()
            start += len(part)
        _set_random_state(after, batch.present_BM.device)
        return loss

    def _backward_by_record(
        self, objective: Objective, views: Mapping[str, View], batch: Batch, weight: float, chunk_size: int
    ) -> Loss:
        """A loss that is a weighted sum over records needs no other chunk."""
        total, logged = torch.zeros((), device=batch.present_BM.device), {}
        for part, shown in _chunks(batch, views, chunk_size):
            loss = objective(self._see(objective, shown, part), part)
            (weight * loss.value).backward()
            total = total + loss.value.detach()
            logged = {key: logged.get(key, 0) + value for key, value in loss.logged.items()}
        return Loss(total, logged)


def _chunks(batch: Batch, views: Mapping[str, View], size: int) -> Iterator[tuple[Batch, dict[str, View]]]:
    for start in range(0, len(batch), size):
        stop = min(start + size, len(batch))
        yield batch.part(start, stop), {name: view.part(start, stop) for name, view in views.items()}


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
