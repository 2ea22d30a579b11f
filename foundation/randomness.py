"""Random numbers that are a function of what they are for, never of when or where they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def draw(seed: int, purpose: str, records: Iterable[str], epochs: Iterable[int], count: int) -> np.ndarray:
    """Uniform draws, each row a function of (seed, purpose, record, epoch) alone.

    Args:
        seed: Of the run.
        purpose: What the draws decide; two purposes never share a draw.
        records: [B] keys of the records.
        epochs: [B] epoch of each record.
        count: Draws per record.

    Returns:
        [B, count] float64 in [0, 1).
    """
    digests = b"".join(
        _digest(8 * count, seed, purpose, record, epoch) for record, epoch in zip(records, epochs, strict=True)
    )
    # The upper 53 bits fill a float64 exactly, so that 1.0 is never reached.
    return (np.frombuffer(digests, dtype="<u8") >> 11).reshape(-1, count) * 2.0**-53


def generator(seed: int, purpose: str, record: str, epoch: int) -> np.random.Generator:
    """A generator for when a record needs more draws than a hash gives cheaply, such as one per voxel."""
    key = np.frombuffer(_digest(16, seed, purpose, record, epoch), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def permutation(seed: int, purpose: str, epoch: int, size: int) -> np.ndarray:
    """[size] int64, the numbers below `size` in an order that is a function of the other arguments."""
    # NumPy promises the raw stream of Philox for ever, which it does not for Generator.permutation.
    raw = generator(seed, purpose, "", epoch).bit_generator.random_raw(size)
    return np.argsort(raw, kind="stable")


def _digest(size: int, seed: int, purpose: str, record: str, epoch: int) -> bytes:
    # SHAKE gives as many bytes as are asked for, the same ones on every machine.
    return hashlib.shake_128(f"{seed}\x1f{purpose}\x1f{int(epoch)}\x1f{record}".encode()).digest(size)
