"""An adapted model: what its heads read and say, its state, its merging, and a table of what is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from finetune.methods.lora import adapted_layers, alike, merge, unsuited
from finetune.methods.modes import AdaptConfig, Full, Scratch
from finetune.methods.reading import Reading, ReadingConfig
from foundation.data.batch import Batch
from foundation.errors import CheckpointError
from foundation.model.multimodal import MultimodalModel
from foundation.model.towers.base import count_parameters
from foundation.model.view import FUSED, Key, View

EVERYTHING = "everything"
"""In place of the name of a subset of modalities: all that a patient has."""


@dataclass(frozen=True)
class Part:
    """What is trained of one part of an adapted model.

    Attributes:
        name: A tower, ``projections``, ``fusion`` or ``heads``.
        trained: Parameters that are.
        total: Parameters there are, added ones included.
        layers: Layers that have an adapter, alike ones as one name with ``*`` for their number, to how many.
        unsuited: Convolutions that LoRA does not fit, where others have an adapter; likewise.
    """

    name: str
    trained: int
    total: int
    layers: dict[str, int]
    unsuited: dict[str, int]


class Adapted(nn.Module):
    """A model, what is read of records, and heads on that.

    Args:
        model: Its frozen parameters may be shared with other models; they are never written to.
        heads: Task to its head, [B, E] to outputs.
        config: How the model was adapted.
        base: Fingerprint of the model before that.
        reading: What heads read; by default the fused embedding alone.
    """

    def __init__(
        self,
        model: MultimodalModel,
        heads: nn.ModuleDict,
        config: AdaptConfig,
        base: str,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.config = config
        self.base = base
        self.reading = reading or Reading(ReadingConfig(), model)

    def forward(
        self, batch: Batch, views: Mapping[Key, View] | None = None, seed: int | None = None
    ) -> dict[Key, dict[str, Any]]:
        """Outputs of every head.

        Args:
            batch: Records.
            views: Fused views by name; by default one, `EVERYTHING`, of all that a record has.
            seed: Of the run, for towers that keep a random part of their tokens; None for evaluation.

        Returns:
            View to task to [B, ...].
        """
        return {
            view: {task: head(x_BE) for task, head in self.heads.items()}
            for view, x_BE in self.inputs(batch, views, seed).items()
        }

    def inputs(
        self, batch: Batch, views: Mapping[Key, View] | None = None, seed: int | None = None
    ) -> dict[Key, Tensor]:
        """What heads read, [B, E] of each view."""
        asked: Mapping[Any, View] = {EVERYTHING: View(FUSED)} if views is None else views
        shown = {name: self.reading.view(view) for name, view in asked.items()}
        outputs = self.model(batch, shown, seed=seed)
        return {name: self.reading(batch, shown[name], output) for name, output in outputs.items()}

    def train(self, mode: bool = True) -> Adapted:
        """Training or evaluation; what is not trained stays in evaluation.

        A part without trained parameters has no use for dropout. Statistics of batches move only where all weights
        are trained: a model whose own ones are frozen would otherwise be another one before its first step.
        """
        super().train(mode)
        parts = [*self.model.towers.children(), self.model.projections, self.model.fusion]
        norms = [module for module in self.model.modules() if hasattr(module, "running_mean")]
        idle = [module for module in parts + norms if not count_parameters(module)["trainable"]]
        for module in idle if isinstance(self.config, Full | Scratch) else idle + norms:
            module.eval()
        return self

    def state(self) -> dict[str, Tensor]:
        """All that is not the base's: trained parameters, heads, and statistics that training may move; not copied."""
        frozen = {
            name for name, parameter in self.model.named_parameters(prefix="model") if not parameter.requires_grad
        }
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name.startswith("heads.") or (name not in frozen and tensor.is_floating_point())
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            CheckpointError: It is of another adapter: names or shapes differ.
        """
        own = self.state()
        differ = sorted(
            {n for n in own.keys() & state.keys() if own[n].shape != state[n].shape} | own.keys() ^ state.keys()
        )
        if differ:
            raise CheckpointError(
                f"this adapter does not fit: {len(differ)} tensors differ, the first is {differ[0]}",
                fix="use the heads and settings that it was made with",
            )
        self.load_state_dict(state, strict=False)

    def merged(self) -> MultimodalModel:
        """A plain model that embeds as this one does: adapters are added into copies of their layers."""
        model = copy.deepcopy(self.model)
        for tower in model.towers.children():
            merge(tower)
        return model.requires_grad_(True).eval()

    def parts(self) -> list[Part]:
        """What is trained, part by part."""
        modules = dict(self.model.towers.named_children())
        modules |= {"projections": self.model.projections, "fusion": self.model.fusion, "heads": self.heads}
        return [_part(name, module) for name, module in modules.items()]

    def summary(self) -> str:
        """A table for a person to read before training."""
        parts = self.parts()
        rows = [("", "trained", "of"), *(row for part in parts for row in _rows(part))]
        rows.append(("together", f"{sum(p.trained for p in parts):,}", f"{sum(p.total for p in parts):,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
        return "\n".join(lines)


def _part(name: str, module: nn.Module) -> Part:
    counts = count_parameters(module)
    layers = alike(layer for layer, _ in adapted_layers(module))
    return Part(name, counts["trainable"], counts["total"], dict(layers), dict(alike(unsuited(module))))


def _rows(part: Part) -> list[tuple[str, str, str]]:
    told = {"LoRA on": part.layers, "left as it is, LoRA does not fit:": part.unsuited}
    lines = [
        f"  {what} {name}" + f" ({count})" * (count > 1) for what, of in told.items() for name, count in of.items()
    ]
    return [(part.name, f"{part.trained:,}", f"{part.total:,}"), *((line, "", "") for line in lines)]
