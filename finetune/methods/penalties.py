"""A ridge penalty for each block that heads read: those under which held-out patients of inner folds are most likely.

Several penalties are searched together (van de Wiel et al. 2021, Fast cross-validation for multi-penalty ridge
regression): from the best common one, or from the first block alone, block by block to a larger, a smaller one, or none
of the block at all. Among a hundred that are tried, some make a few dozen patients likely by luck: a smaller penalty
has to gain more than one standard error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.methods.reading import Block

COMMON = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Of half the squared weights, beside the mean loss of a patient or event; the most cautious first."""

STEP = 10.0
"""By which the penalty of a block is tried to be larger or smaller."""

ROUNDS = 3

OFF = math.inf
"""The penalty of a block that is not read."""

Values = Callable[[Mapping[str, float]], Iterator[float]]
"""Block to its penalty, to the log-likelihood of held-out patients of one inner fold after the other."""

FIRST = 2
"""Inner folds after which what is worse on each of them is given up."""


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


def choose_penalties(blocks: Sequence[Block], values: Values) -> Penalties:
    """Search the penalties of all blocks; of equals the more cautious.

    Args:
        blocks: In the order in which they are tried; the first is tried alone, too.
        values: Whose mean is to be large.
    """
    names, known = [block.name for block in blocks], _Known(values)
    common = {penalty: known.of(dict.fromkeys(names, penalty)) for penalty in COMMON}
    start = max(common, key=lambda penalty: common[penalty].mean())
    current, best_K = dict.fromkeys(names, start), common[start]
    for penalty in COMMON if len(names) > 1 else ():
        alone = {**dict.fromkeys(names, OFF), names[0]: penalty}
        found_K = known.unless_worse(alone, best_K)
        if found_K is not None and found_K.mean() > best_K.mean():
            current, best_K = alone, found_K
    for _ in range(ROUNDS if len(names) > 1 else 0):
        before = dict(current)
        for name in names:
            for penalty in _others(current[name], start):
                changed = {**current, name: penalty}
                if all(map(math.isinf, changed.values())):
                    continue
                found_K = known.unless_worse(changed, best_K)
                if found_K is not None and _gains(found_K - best_K, cautious=penalty > current[name]):
                    current, best_K = changed, found_K
        if current == before:
            break
    read = [name for name, penalty in current.items() if not math.isinf(penalty)]
    without = {name: float(known.of({**current, name: OFF}).mean()) for name in read} if len(read) > 1 else {}
    return Penalties(current, float(best_K.mean()), without)


class _Known:
    """Values of inner folds, of which none is asked for twice."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._of: dict[tuple[float, ...], tuple[Iterator[float], list[float]]] = {}

    def of(self, penalties: Mapping[str, float]) -> np.ndarray:
        """[K] of all inner folds."""
        rest, found = self._begun(penalties)
        found.extend(rest)
        return np.array(found)

    def unless_worse(self, penalties: Mapping[str, float], than_K: np.ndarray) -> np.ndarray | None:
        """[K] of all inner folds; None where each of the first is worse."""
        rest, found = self._begun(penalties)
        found.extend(itertools.islice(rest, max(0, FIRST - len(found))))
        if all(value < than for value, than in zip(found[:FIRST], than_K, strict=False)):
            return None
        return self.of(penalties)

    def _begun(self, penalties: Mapping[str, float]) -> tuple[Iterator[float], list[float]]:
        key = tuple(penalties.values())
        if key not in self._of:
            self._of[key] = (self._values(penalties), [])
        return self._of[key]


def _gains(gain_K: np.ndarray, *, cautious: bool) -> bool:
    """Whether a penalty is better: a larger one by anything, a smaller one by more than a standard error."""
    error = 0.0 if cautious or len(gain_K) == 1 else gain_K.std(ddof=1) / np.sqrt(len(gain_K))
    return bool(gain_K.mean() > error)


def _others(penalty: float, start: float) -> tuple[float, ...]:
    """What is tried in place of a penalty, the most cautious first."""
    return (start,) if math.isinf(penalty) else (OFF, penalty * STEP, penalty / STEP)
