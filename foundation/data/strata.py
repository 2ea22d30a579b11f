"""An order of records in which each part of them, such as pairs, has its share of every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from foundation.data.order import PURPOSE
from foundation.data.sampler import BatchKey, PatientOrder
from foundation.randomness import permutation

FINEST = 2**31
"""Denominator of a share; its square fits an int64."""


Shuffle = Callable[[int, int], np.ndarray]
"""(seed, epoch) to a permutation of positions."""

ShuffleOf = Callable[[np.ndarray, str], Shuffle | None]
"""Rows of a stratum, and what the random numbers are for, to the shuffle of positions; None for a full one."""


@dataclass(frozen=True)
class Stratum:
    """Records that are drawn equally often.

    Attributes:
        cohort: Name of their cohort.
        paired: Whether they have both sides of a contrast.
        rows: Of the cohort.
        share: Of all samples that are drawn.
    """

    cohort: str
    paired: bool
    rows: np.ndarray
    share: Fraction


class StratifiedOrder(PatientOrder):
    """Batches that hold of each stratum what its share asks for.

    Each stratum is an endless stream of its own, as `PatientOrder` has it: a permutation of its rows, then another. A
    fixed rule says which stratum sample `s` belongs to, and how many of this stratum were before it, so the order is a
    function of the seed alone, and `samples_seen` is all that resuming needs. The rule halves the strata again and
    again, pairs from the others first: of the first `m` samples of a branch, `floor(m * share)` go to its left half.
    Any run of `n` samples so holds `n` times the share of pairs to within one record, wherever it begins; of strata
    further down it may be a record more or less for each level.

    The epoch of a record counts how often its own stratum was passed through.

    Args:
        strata: Pairs first; no row may be in two.
        batch_size, seed, samples_seen, batches, rank, world_size: As for `PatientOrder`.
        shuffle_of: Rows of a stratum to their shuffle; None for a full one.
    """

    def __init__(
        self,
        strata: Sequence[Stratum],
        batch_size: int,
        *,
        seed: int,
        samples_seen: int = 0,
        batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        shuffle_of: ShuffleOf = lambda rows, purpose: None,
    ) -> None:
        super().__init__(
            np.concatenate([stratum.rows for stratum in strata]),
            batch_size,
            seed=seed,
            samples_seen=samples_seen,
            batches=batches,
            rank=rank,
            world_size=world_size,
        )
        self.strata = list(strata)
        self._streams = [
            PatientOrder(
                stratum.rows,
                1,
                seed=seed,
                shuffle=shuffle_of(stratum.rows, f"{PURPOSE} of stratum {number}")
                or partial(_shuffled, number, len(stratum.rows)),
            )
            for number, stratum in enumerate(strata)
        ]

    def key(self, start: int, stop: int) -> BatchKey:
        """Samples `start` to `stop` of the endless stream."""
        stratum_of, _ = dealt(self.strata, np.arange(start, stop, dtype=np.int64))
        before, after = drawn(self.strata, start), drawn(self.strata, stop)
        rows, epochs = (np.empty(stop - start, dtype=np.int64) for _ in range(2))
        for number, stream in enumerate(self._streams):
            if after[number] > before[number]:
                here = stratum_of == number
                rows[here], epochs[here] = stream.key(before[number], after[number])
        return BatchKey(rows, epochs)


def _shuffled(stratum: int, records: int, seed: int, epoch: int) -> np.ndarray:
    """Strata of one size would else be permuted alike, and the same records of them always meet."""
    return permutation(seed, f"order of stratum {stratum}", epoch, records)


def order_of(
    strata: Sequence[Stratum], batch_size: int, shuffle_of: ShuffleOf = lambda rows, purpose: None, **others: int | None
) -> PatientOrder:
    """The order of some strata; of a single one it is that of `PatientOrder`, whose arguments the others are.

    Args:
        strata: Of the run.
        batch_size: Records of a batch over all ranks.
        shuffle_of: Rows to their shuffle; None for a full one.
        others: As for `PatientOrder`.
    """
    if len(strata) == 1:
        return PatientOrder(strata[0].rows, batch_size, shuffle=shuffle_of(strata[0].rows, PURPOSE), **others)  # type: ignore[arg-type]
    return StratifiedOrder(strata, batch_size, shuffle_of=shuffle_of, **others)  # type: ignore[arg-type]


def dealt(strata: Sequence[Stratum], samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which stratum each sample belongs to, and how many samples of that stratum come before it.

    Args:
        strata: In the order of the run.
        samples: [S] int64, numbers of samples.

    Returns:
        [S] int64 and [S] int64.
    """
    if len(strata) == 1:
        return np.zeros(len(samples), dtype=np.int64), samples
    cut, share = _halves(strata)
    before = _floor(samples, share)
    is_left = _floor(samples + 1, share) > before
    stratum_of, number = (np.empty(len(samples), dtype=np.int64) for _ in range(2))
    stratum_of[is_left], number[is_left] = dealt(strata[:cut], before[is_left])
    right, number[~is_left] = dealt(strata[cut:], (samples - before)[~is_left])
    stratum_of[~is_left] = cut + right
    return stratum_of, number


def drawn(strata: Sequence[Stratum], samples: int) -> list[int]:
    """How many of the first samples belong to each stratum."""
    if len(strata) == 1:
        return [samples]
    cut, share = _halves(strata)
    left = int(_floor(np.array([samples]), share)[0])
    return drawn(strata[:cut], left) + drawn(strata[cut:], samples - left)


def _halves(strata: Sequence[Stratum]) -> tuple[int, Fraction]:
    """Where to cut a list of strata, pairs from others if there are both, and the share of what is left of the cut."""
    pairs = sum(stratum.paired for stratum in strata)
    cut = pairs if 0 < pairs < len(strata) else len(strata) // 2
    left, whole = (sum((stratum.share for stratum in part), Fraction(0)) for part in (strata[:cut], strata))
    return cut, (left / whole).limit_denominator(FINEST)


def _floor(samples: np.ndarray, share: Fraction) -> np.ndarray:
    """`floor(samples * share)`, exact however many samples there are."""
    rounds, rest = np.divmod(samples, share.denominator)
    return rounds * share.numerator + rest * share.numerator // share.denominator
