"""Heads on what is read of records, whose initial weights are the ridge fit to the model before training.

A head that starts at random pulls the model about before it knows where to; one that is fitted first does not
(Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from finetune.methods.reading import Block
from finetune.tasks.base import Task
from foundation.training.optimiser import Paced

STEPS = 60

FLAT = 1e-8
"""A gradient or a step that is no more than this ends the fit."""

LEAST_SPREAD = 1e-6


class Head(Paced):
    """A task's head behind inputs about 0 and of unit variance, with a ridge penalty for each of their blocks.

    Adam moves every weight by the learning rate, however small its gradient. Where gradients are noise, as with few
    patients they are, outputs of a head that reads a thousand inputs would stray thirty times as far as those of one
    that reads a single one. So its weights learn slower, by the root of how many inputs it reads.

    Args:
        task: Makes the inner head.
        blocks: Of the inputs, in their order.
    """

    center_E: Tensor
    scale_E: Tensor
    penalty_E: Tensor

    def __init__(self, task: Task, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        width = sum(block.width for block in self.blocks)
        self.inner = task.head(width)
        for weight in self.weights():
            nn.init.zeros_(weight)
        self.register_buffer("center_E", torch.zeros(width))
        self.register_buffer("scale_E", torch.ones(width))
        self.register_buffer("penalty_E", torch.zeros(width), persistent=False)

    def forward(self, x_BE: Tensor) -> Tensor:
        """Outputs of the task, for what is read of records."""
        return self.inner((x_BE - self.center_E) / self.scale_E)

    def read(self, spread_E: Tensor, penalties: Mapping[str, float]) -> None:
        """Learn scale from the spread of inputs among training records, and take over penalties.

        Args:
            spread_E: Standard deviations.
            penalties: Block to its penalty of half the squared weights; a block whose is infinite is not read.
        """
        for block, columns in self.columns():
            shared_E = spread_E[columns]
            if not block.single:
                shared_E = shared_E.square().mean().sqrt().expand_as(shared_E)
            off = math.isinf(penalties[block.name])
            told_E = torch.where(shared_E > LEAST_SPREAD, shared_E, torch.inf)
            self.scale_E[columns] = torch.inf if off else told_E
            self.penalty_E[columns] = 1.0 if off else penalties[block.name]
        self.pace = float(self.scale_E.isfinite().sum().clamp(min=1)) ** -0.5

    def ridge(self) -> Tensor:
        """Half the sum of squared weights, each times the penalty of its block."""
        return torch.stack([(weight.square() * self.penalty_E).sum() for weight in self.weights()]).sum() / 2

    def weights(self) -> list[nn.Parameter]:
        """Those that are penalised, [..., E] each."""
        return [parameter for name, parameter in self.named_parameters() if name.endswith("weight")]

    def columns(self) -> Iterator[tuple[Block, slice]]:
        """Each block and where in the inputs it is."""
        at = 0
        for block in self.blocks:
            yield block, slice(at, at + block.width)
            at += block.width


class RidgeFit:
    """Fits a head to training records, by the task's own loss and one set of ridge penalties after another.

    Args:
        head: Centred on its inputs, and changed in place by each fit, from wherever it is.
        x_NE: What is read of training records.
        loss: Of outputs for these records, as `Task.loss_of` gives it.
    """

    def __init__(self, head: Head, x_NE: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        self.head, self.x_NE, self.loss = head, x_NE, loss
        self.spread_E = x_NE.std(dim=0, correction=0)
        head.center_E.copy_(x_NE.mean(dim=0))

    def varying(self) -> set[str]:
        """Blocks of which any column differs between records: others, as of a modality that nobody has, say nothing."""
        return {
            block.name for block, columns in self.head.columns() if bool((self.spread_E[columns] > LEAST_SPREAD).any())
        }

    def under(self, penalties: Mapping[str, float], *, steps: int = STEPS) -> None:
        """Fit the head; weights of what is not read become zero.

        Args:
            penalties: See `Head.read`.
            steps: Of the search, at most; few where the head is near already.
        """
        head = self.head
        head.read(self.spread_E, penalties)
        [read_R] = head.scale_E.isfinite().nonzero(as_tuple=True)
        # Scaled once, not in every step of the search; by the penalties too, as one that is much larger than others
        # would end the search before theirs are fitted.
        root_R = head.penalty_E[read_R].sqrt()
        scaled_NR = (self.x_NE[:, read_R] - head.center_E[read_R]) / (head.scale_E[read_R] * root_R)
        weights = head.weights()
        for weight in weights:
            weight.data = weight.data[..., read_R] * root_R
        optimiser = torch.optim.LBFGS(
            head.parameters(),
            max_iter=steps,
            tolerance_grad=1e-6,
            tolerance_change=FLAT,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            ridge = torch.stack([weight.square().sum() for weight in weights]).sum() / 2
            total = self.loss(head.inner(scaled_NR)) + ridge
            total.backward()
            return total

        # A head without any input and constant, as of the Cox form, says 0 of everybody.
        if any(parameter.numel() for parameter in head.parameters()):
            with torch.enable_grad():
                optimiser.step(closure)
            optimiser.zero_grad(set_to_none=True)
        for weight in weights:
            whole = weight.data.new_zeros(*weight.shape[:-1], len(head.scale_E))
            whole[..., read_R] = weight.data / root_R
            weight.data = whole
