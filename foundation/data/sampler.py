"""Which records come next: an order that is a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from foundation.errors import ConfigError
from foundation.randomness import permutation


class BatchKey(NamedTuple):
    """What a worker needs to know to build a batch: rows of the cohort [B], and the epoch of each [B].

    The epoch travels with the rows because workers that outlive an epoch never see the sampler again.
    """

    rows: np.ndarray
    epochs: np.ndarray


class PatientOrder:
    """Batches of a training run, from one endless stream of records.

    The stream is a permutation of all rows, then another of all rows, and so on: sample number `s` is the
    `s % len(rows)`-th of epoch `s // len(rows)`. So no record is left out at the end of an epoch, every batch
    is full, a batch may reach into the next epoch (and then hold a record twice), and `samples_seen` is all
    that resuming needs, also with another batch size or world size. A global batch is split over the ranks
    in contiguous pieces, so that the pieces of all ranks laid end to end are the batch of a single process.

    Args:
        rows: Rows of the cohort to train on; their order does not matter.
        batch_size: Records of a batch over all ranks.
        seed: Of the run.
        samples_seen: Records, over all ranks, that the run has already consumed.
        batches: Batches to give; None for as many as are asked for.
        rank, world_size: This process among all.
        shuffle: (seed, epoch) to a permutation of the sorted rows, by position; all of them at random by default.

    Raises:
        ConfigError: There is no row, or the batch cannot give every rank a record.
    """

    def __init__(
        self,
        rows: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        seed: int,
        samples_seen: int = 0,
        batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        shuffle: Callable[[int, int], np.ndarray] | None = None,
    ) -> None:
        self.rows = _unique_rows(rows)
        _check_split(batch_size, rank, world_size)
        self.batch_size = batch_size
        self.seed = seed
        self.samples_seen = samples_seen
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self._shuffle = shuffle or (lambda seed, epoch: permutation(seed, "order", epoch, len(self.rows)))
        self._order: tuple[int, np.ndarray] | None = None

    def __iter__(self) -> Iterator[BatchKey]:
        """Give this rank's piece of each batch; every iteration starts again at `samples_seen`."""
        batch = 0
        while self.batches is None or batch < self.batches:
            first = self.samples_seen + batch * self.batch_size
            own = piece(self.batch_size, self.rank, self.world_size)
            yield self.key(first + own.start, first + own.stop)
            batch += 1

    def __len__(self) -> int:
        """Number of batches."""
        if self.batches is None:
            raise TypeError("an endless order has no length")
        return self.batches

    def key(self, start: int, stop: int) -> BatchKey:
        """Samples `start` to `stop` of the endless stream."""
        epochs = np.arange(start, stop, dtype=np.int64) // len(self.rows)
        parts = []
        for epoch in np.unique(epochs):
            begin = epoch * len(self.rows)
            parts.append(self._permuted(int(epoch))[max(start - begin, 0) : stop - begin])
        return BatchKey(np.concatenate(parts), epochs)

    def _permuted(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self.rows[self._shuffle(self.seed, epoch)])
        return self._order[1]


class OnePass:
    """Every row once, in the order given, epoch 0; for evaluation. The last batch may be short.

    Args:
        rows: Rows of the cohort.
        batch_size: Records of a batch over all ranks.
        rank, world_size: This process among all; of a short last batch a rank may get an empty piece.
    """

    def __init__(
        self, rows: Sequence[int] | np.ndarray, batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        _check_split(batch_size, rank, world_size)
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[BatchKey]:
        """Give this rank's piece of each batch."""
        for start in range(0, len(self.rows), self.batch_size):
            whole = self.rows[start : start + self.batch_size]
            rows = whole[piece(len(whole), self.rank, self.world_size)]
            yield BatchKey(rows, np.zeros(len(rows), dtype=np.int64))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.rows) // self.batch_size)


def piece(count: int, rank: int, world_size: int) -> slice:
    """A process's part of what all share, in contiguous pieces that differ by one at most."""
    return slice(rank * count // world_size, (rank + 1) * count // world_size)


def _unique_rows(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    unique = np.unique(np.asarray(rows, dtype=np.int64))
    if not len(unique):
        raise ConfigError("no record to train on", fix="check the split, and that the cohort holds these patients")
    return unique


def _check_split(batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < world_size:
        raise ConfigError(
            f"a batch of {batch_size} does not give {world_size} processes a record each",
            where="batch_size",
            fix=f"use at least {world_size}",
        )
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} is not one of {world_size} processes", where="rank")
