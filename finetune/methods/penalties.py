"""A ridge penalty for each block that heads read: those under which held-out patients of inner folds are most likely.

Several penalties are searched together (van de Wiel et al. 2021, Fast cross-validation for multi-penalty ridge
regression): from the best common one, block by block, to a larger, a smaller one, or none of the block at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune.methods.reading import Block

COMMON = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Of half the squared weights, beside the mean loss of a patient or event; the most cautious first."""

STEP = 10.0
"""By which the penalty of a block is tried to be larger or smaller."""

ROUNDS = 3

OFF = math.inf
"""The penalty of a block that is not read."""

Value = Callable[[Mapping[str, float]], float]
"""Block to its penalty, to the log-likelihood of held-out patients."""


@dataclass(frozen=True)
class Penalties:
    """What was chosen for a task.

    Attributes:
        of_block: Block to its penalty; `OFF` where it is not read.
        cv_log_likelihood: Of held-out patients under these.
        without: Block that is read to the same without it.
    """

    of_block: dict[str, float]
    cv_log_likelihood: float
    without: dict[str, float]

    def document(self) -> dict[str, dict[str, float | None] | None]:
        """Block to its penalty and what is lost of the log-likelihood without it; None where it is not read.

        What is lost without the only block is not known.
        """
        read = {name: penalty for name, penalty in self.of_block.items() if not math.isinf(penalty)}
        lost = {name: self.cv_log_likelihood - value for name, value in self.without.items()}
        told = {name: {"penalty": penalty, "lost_without": lost.get(name)} for name, penalty in read.items()}
        return dict.fromkeys(self.of_block, None) | told


def choose_penalties(blocks: Sequence[Block], value: Value) -> Penalties:
    """Search the penalties of all blocks; of equals the more cautious.

    Args:
        blocks: In the order in which they are tried.
        value: What to make large.
    """
    names = [block.name for block in blocks]
    common = {penalty: value(dict.fromkeys(names, penalty)) for penalty in COMMON}
    start = max(common, key=lambda penalty: common[penalty])
    current, best = dict.fromkeys(names, start), common[start]
    known: dict[tuple[float, ...], float] = {}

    def of(penalties: Mapping[str, float]) -> float:
        key = tuple(penalties.values())
        if key not in known:
            known[key] = value(penalties)
        return known[key]

    for _ in range(ROUNDS if len(names) > 1 else 0):
        before = dict(current)
        for name in names:
            for penalty in _others(current[name], start):
                changed = {**current, name: penalty}
                if all(map(math.isinf, changed.values())):
                    continue
                found = of(changed)
                if found > best:
                    current, best = changed, found
        if current == before:
            break
    read = [name for name, penalty in current.items() if not math.isinf(penalty)]
    without = {name: of({**current, name: OFF}) for name in read} if len(read) > 1 else {}
    return Penalties(current, best, without)


def _others(penalty: float, start: float) -> tuple[float, ...]:
    """What is tried in place of a penalty, the most cautious first."""
    return (start,) if math.isinf(penalty) else (OFF, penalty * STEP, penalty / STEP)
