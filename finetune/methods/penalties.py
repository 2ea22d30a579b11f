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

    of_block: Mapping[str, float]
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
    names, search = [block.name for block in blocks], _Search(_Known(values))
    search.along(lambda penalty: dict.fromkeys(names, penalty))
    start = search.current[names[0]]
    if len(names) > 1:
        search.along(lambda penalty: {**dict.fromkeys(names, OFF), names[0]: penalty})
    for _ in range(ROUNDS if len(names) > 1 else 0):
        before = search.current
        for name in names:
            search.vary(name, start)
        if search.current == before:
            break
    current, reached = search.current, float(search.best_K.mean())
    read = [name for name, penalty in current.items() if not math.isinf(penalty)]
    rest = {name: {**current, name: OFF} for name in read} if len(read) > 1 else {}
    return Penalties(current, reached, {name: float(search.known.of(without).mean()) for name, without in rest.items()})


class _Search:
    """The best that was found so far; until then, as if nothing were read.

    Attributes:
        known: Values of what was tried.
        current: Block to its penalty.
        best_K: Values of these.
    """

    def __init__(self, known: _Known) -> None:
        self.known = known
        self.current: Mapping[str, float] = {}
        self.best_K = np.array([-np.inf])

    def along(self, made: Callable[[float], Mapping[str, float]]) -> None:
        """Try what is made of the penalties of `COMMON`: each second one, then those beside the best of them."""
        gaining = [at for at in range(0, len(COMMON), 2) if self.offer(made(COMMON[at]))]
        for at in (gaining[-1] - 1, gaining[-1] + 1) if gaining else ():
            if 0 <= at < len(COMMON):
                self.offer(made(COMMON[at]))

    def vary(self, name: str, start: float) -> None:
        """Try a block without it, and under a larger penalty; where neither gains, under a smaller one.

        Args:
            name: Of the block.
            start: Under which one that is not read is tried.
        """
        penalty = self.current[name]
        if math.isinf(penalty):
            self.offer({**self.current, name: start}, surely=True)
            return
        self.offer({**self.current, name: OFF})
        self.offer({**self.current, name: penalty * STEP}, surely=math.isinf(self.current[name]))
        if self.current[name] == penalty:
            self.offer({**self.current, name: penalty / STEP}, surely=True)

    def offer(self, penalties: Mapping[str, float], *, surely: bool = False) -> bool:
        """Take penalties over if they are better: by anything, or surely, by more than a standard error."""
        if all(map(math.isinf, penalties.values())):
            return False
        found_K = self.known.unless_worse(penalties, self.best_K)
        if found_K is None:
            return False
        gain_K = found_K - self.best_K
        error = gain_K.std(ddof=1) / np.sqrt(len(gain_K)) if surely and len(gain_K) > 1 else 0.0
        # The first is taken whatever it is worth, so that there is always one.
        gains = not self.current or bool(gain_K.mean() > error)
        if gains:
            self.current, self.best_K = penalties, found_K
        return gains


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
