"""What training begins with: what heads read of training records, inner folds to choose on, and penalties of heads."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from finetune.methods.heads import STEPS, Head, RidgeFit
from finetune.methods.penalties import OFF, Penalties, choose_penalties
from finetune.methods.reading import Reading
from finetune.methods.training_views import TrainingViews
from finetune.splits import Fold
from finetune.study import Study

NEAR = 12
"""Steps by which a head is fitted under penalties that are near those it was fitted under."""

ENOUGH = 1000
"""Held-out records that tell penalties apart; of more, further inner folds are spared."""


@dataclass(frozen=True)
class Beginning:
    """What training begins with; methods that begin with the same model share it.

    Attributes:
        reading: What heads read.
        views: Of the training records.
        inner: Folds of these, to choose on.
        penalties: Task to those that its head begins with.
    """

    reading: Reading
    views: TrainingViews
    inner: list[Fold]
    penalties: dict[str, Penalties]

    @classmethod
    def of(cls, study: Study, reading: Reading, views: TrainingViews, inner: list[Fold]) -> Beginning:
        """Choose the penalties of each task's head on inner folds."""
        penalties = {name: _choose(study, name, reading, views, _enough(inner)) for name in study.weights}
        return cls(reading, views, inner, penalties)


def _choose(study: Study, name: str, reading: Reading, views: TrainingViews, inner: Sequence[Fold]) -> Penalties:
    """For a task the penalties under which held-out patients are most likely."""
    device, folds = views.x_LE.device, []
    for fold in inner:
        task = study.tasks(fold.train)[name].to(device)
        test = views.of(study.one_each(fold.test), whole=True)
        train = views.of(fold.train)
        head = Head(task, reading.blocks()).to(device)
        learned, judged = (study.loss_of(task, of.rows, device) for of in (train, test))
        folds.append((RidgeFit(head, train.x_LE, learned), test.x_LE, judged))
    best, states = -math.inf, [copy.deepcopy(fit.head.state_dict()) for fit, *_ in folds]
    off = {block.name: OFF for block in reading.blocks()}
    varying = set().union(*(fit.varying() for fit, *_ in folds))

    def values(penalties: Mapping[str, float]) -> Iterator[float]:
        nonlocal best, states
        found, ended, steps = [], [], STEPS if math.isinf(best) else NEAR
        for (fit, test_LE, judged), state in zip(folds, states, strict=True):
            # From where the best so far is: what is tried is near.
            fit.head.load_state_dict(state)
            fit.under({**off, **penalties}, steps=steps)
            ended.append(copy.deepcopy(fit.head.state_dict()))
            with torch.no_grad():
                found.append(-float(judged(fit.head(test_LE))))
            yield found[-1]
        if np.mean(found) > best:
            best, states = float(np.mean(found)), ended

    told = [block for block in reading.blocks() if block.name in varying]
    found = choose_penalties(told or reading.blocks(), values)
    return replace(found, of_block={**off, **found.of_block})


def _enough(inner: Sequence[Fold]) -> list[Fold]:
    """As many inner folds as hold out `ENOUGH` records, of which there may be fewer."""
    held_out = np.cumsum([len(fold.test) for fold in inner])
    return list(inner[: int(np.searchsorted(held_out, ENOUGH)) + 1])
