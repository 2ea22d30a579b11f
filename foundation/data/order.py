"""How the records of an epoch are shuffled: all at random, or shard by shard with some open at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import gammaln

from foundation.config import Config
from foundation.randomness import generator

PURPOSE = "order in blocks"


class OrderConfig(Config):
    """How the records of an epoch are shuffled."""

    shuffle: Literal["full", "blocks"] = Field(
        description="`full`: every order is as likely as any other. `blocks`: shards come in a random order, and "
        "records are drawn from some of them at a time, so that each shard is read about once an epoch."
    )
    open_shards: int = Field(
        default=32, ge=1, description="Of `blocks`: from how many shards records are drawn at a time."
    )

    def build(self, shard_of_N: np.ndarray, purpose: str = PURPOSE) -> Blocks | None:
        """The shuffle of records, given the shard of each; None for a full one. See `Blocks` for the purpose."""
        return Blocks(shard_of_N, self.open_shards, purpose) if self.shuffle == "blocks" else None


class Blocks:
    """Shards in a random order, a window of them open at a time.

    The shards of an epoch lie on a circle in a random order, one step apart, and each of a shard's records is put at a
    random place within `open_shards` steps after it. Read around the circle, records come from `open_shards` shards at
    any time, one of which is replaced with every step. What begins open at the end of the circle is read again at its
    beginning: an epoch opens that many shards twice and all others once. With as many open as there are, or more, the
    places are random on the whole circle, which is a full shuffle.

    Args:
        shard_of_N: [N] shard of each record.
        open_shards: How many are open at a time.
        purpose: Of the random numbers; orders of different purposes have nothing to do with each other.
    """

    def __init__(self, shard_of_N: np.ndarray, open_shards: int, purpose: str = PURPOSE) -> None:
        names, self._shard_of_N = np.unique(shard_of_N, return_inverse=True)
        self.shards = len(names)
        self.open_shards = min(open_shards, self.shards)
        self._purpose = purpose

    def __call__(self, seed: int, epoch: int) -> np.ndarray:
        """[N] positions in the order of an epoch, a function of (seed, epoch) alone."""
        # Philox gives the same raw numbers for ever; 53 bits of each make a float.
        raw = generator(seed, self._purpose, "", epoch).bit_generator.random_raw(self.shards + len(self._shard_of_N))
        step_of_shard = np.argsort(np.argsort(raw[: self.shards], kind="stable"), kind="stable")
        within = (raw[self.shards :] >> np.uint64(11)) * 2.0**-53
        place_N = (step_of_shard[self._shard_of_N] + self.open_shards * within) % self.shards
        return np.argsort(place_N, kind="stable")


@dataclass(frozen=True)
class Mixing:
    """How well an order mixes, measured on its first epoch.

    Attributes:
        batch_size: Records of a batch.
        shards: Mean number of shards that a batch comes from.
        of_full: The same of a full shuffle.
        correlation: Between the stored positions of records that follow each other: 0 in a full shuffle, nearly 1
            where nothing is shuffled.
    """

    batch_size: int
    shards: float
    of_full: float
    correlation: float

    def sentence(self) -> str:
        """For the log."""
        return (
            f"a batch of {self.batch_size} comes from {self.shards:.1f} shards on average (a full shuffle: "
            f"{self.of_full:.1f}); stored positions of records that follow each other correlate by "
            f"{self.correlation:.3f} (a full shuffle: 0, no shuffle: 1)"
        )


MOST_BATCHES = 1000


def measure_mixing(shard_of_N: np.ndarray, order_N: np.ndarray, batch_size: int) -> Mixing:
    """Measure an order of records.

    Args:
        shard_of_N: [N] shard of each record.
        order_N: [N] positions in their order.
        batch_size: Of a batch over all processes.
    """
    records_of = np.unique(shard_of_N, return_counts=True)[1]
    whole = max(1, len(order_N) // batch_size)
    starts = np.unique(np.linspace(0, whole - 1, min(whole, MOST_BATCHES)).round().astype(np.int64)) * batch_size
    in_batch = [len(np.unique(shard_of_N[order_N[start : start + batch_size]])) for start in starts.tolist()]
    absent = _none_of(records_of, len(shard_of_N), min(batch_size, len(order_N)))
    varied = len(order_N) > 2
    correlation = float(np.corrcoef(order_N[:-1], order_N[1:])[0, 1]) if varied else 0.0
    return Mixing(batch_size, float(np.mean(in_batch)), float(np.sum(1 - absent)), correlation)


def _none_of(marked: np.ndarray, count: int, drawn: int) -> np.ndarray:
    """The probability that none of these marked things is among some that are drawn, each once: hypergeometric."""
    left = count - marked
    logarithm = gammaln(left + 1) - gammaln(np.maximum(left - drawn, 0) + 1)
    logarithm -= gammaln(count + 1) - gammaln(count - drawn + 1)
    return np.where(left >= drawn, np.exp(logarithm), 0.0)
