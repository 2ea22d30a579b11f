"""Random numbers that are a function of what they are for, never of when or where they are drawn.

A hash gives the key of a record in an epoch, once per purpose; its draws are a second hash of that key and of their own
number, made for a whole batch at once. This second hash is SplitMix64 (Steele, Lea and Flood 2014, with Stafford's
constants), into which the other half of the key is mixed between its two rounds. It is integer arithmetic modulo 2**64
and nothing else, so that its numbers are those of every machine and every version of NumPy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np

BITS = 53
"""Of a draw. They fill a float64 exactly, so that 1.0 is never reached."""
LEADING = 16
"""Bits of a draw that come from a word shared with its neighbours; they decide nearly every comparison."""
PER_WORD = 64 // LEADING
WORDS_OF_A_BLOCK = 2**16
"""Words made at a time: few enough for the cache of a core, many enough that calling NumPy costs nothing."""


def draw(
    seed: int, purpose: str, records: Sequence[str] | np.ndarray, epochs: Sequence[int] | np.ndarray, count: int
) -> np.ndarray:
    """Uniform draws, each row a function of (seed, purpose, record, epoch) alone.

    More draws leave the first ones as they are.

    Args:
        seed: Of the run.
        purpose: What the draws decide; two purposes never share a draw.
        records: [B] keys of the records.
        epochs: [B] epoch of each record.
        count: Draws per record.

    Returns:
        [B, count] float64 in [0, 1).
    """
    keys_B2 = _keys(seed, purpose, records, epochs)
    draws = np.empty((len(keys_B2), count))
    for rows in _blocks(len(keys_B2), count):
        whole = _leading(keys_B2[rows], count).astype(np.uint64) << np.uint64(BITS - LEADING)
        whole |= _following(keys_B2[rows, None], np.arange(count))
        np.multiply(whole, 2.0**-BITS, out=draws[rows])
    return draws


def chosen(
    seed: int,
    purpose: str,
    records: Sequence[str] | np.ndarray,
    epochs: Sequence[int] | np.ndarray,
    count: int,
    probability: float,
) -> np.ndarray:
    """What each draw chooses with this probability: `draw(...) < probability`, without making all of each draw.

    Args:
        seed: Of the run.
        purpose: What the draws decide.
        records: [B] keys of the records.
        epochs: [B] epoch of each record.
        count: Draws per record.
        probability: That one of them is True.

    Returns:
        [B, count] bool.
    """
    keys_B2 = _keys(seed, purpose, records, epochs)
    # A draw is below the probability exactly where its integer is below this one.
    threshold = math.ceil(min(max(probability, 0.0), 1.0) * 2.0**BITS)
    first, rest = divmod(threshold, 2 ** (BITS - LEADING))
    below = np.empty((len(keys_B2), count), dtype=bool)
    for rows in _blocks(len(keys_B2), -(-count // PER_WORD)):
        leading = _leading(keys_B2[rows], count)
        np.less(leading, first, out=below[rows])
        if rest:
            row, column = np.divmod(np.flatnonzero(leading == first), count)
            below[rows][row, column] = _following(keys_B2[rows][row], column) < rest
    return below


def generator(seed: int, purpose: str, record: str, epoch: int) -> np.random.Generator:
    """A generator for what uniform draws are not enough for, such as normal noise for each voxel."""
    key = np.frombuffer(_digest(seed, purpose, record, epoch), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def permutation(seed: int, purpose: str, epoch: int, size: int) -> np.ndarray:
    """[size] int64, the numbers below `size` in an order that is a function of the other arguments."""
    # NumPy promises the raw stream of Philox for ever, which it does not for Generator.permutation.
    raw = generator(seed, purpose, "", epoch).bit_generator.random_raw(size)
    return np.argsort(raw, kind="stable")


def _digest(seed: int, purpose: str, record: str, epoch: int) -> bytes:
    return hashlib.shake_128(f"{seed}\x1f{purpose}\x1f{epoch}\x1f{record}".encode()).digest(16)


def _keys(
    seed: int, purpose: str, records: Sequence[str] | np.ndarray, epochs: Sequence[int] | np.ndarray
) -> np.ndarray:
    """[B, 2] uint64."""
    numbers = np.asarray(epochs, dtype=np.int64).tolist()
    digests = b"".join(_digest(seed, purpose, record, epoch) for record, epoch in zip(records, numbers, strict=True))
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _blocks(rows: int, words: int) -> Iterator[slice]:
    """Slices of rows, each with about as many words as a block has."""
    size = max(1, WORDS_OF_A_BLOCK // max(1, words))
    return (slice(start, start + size) for start in range(0, rows, size))


def _leading(keys_B2: np.ndarray, count: int) -> np.ndarray:
    """[B, count] uint16, the upper bits of each draw."""
    words = _words(keys_B2[:, None], np.arange(-(-count // PER_WORD), dtype=np.uint64))
    return words.astype("<u8", copy=False).view("<u2")[:, :count]


def _following(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The other bits of the draws at these places, of the shape that keys [..., 2] and places have together."""
    # Words of leading bits are counted up from zero and these down from the highest number, so that none is used twice.
    words = _words(keys, ~places.astype(np.uint64))
    return words >> np.uint64(64 - BITS + LEADING)


def _words(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uint64 words, of the shape that keys [..., 2] and counters have together."""
    words = keys[..., 0] + counters * np.uint64(0x9E3779B97F4A7C15)
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= keys[..., 1]
    np.right_shift(words, np.uint64(27), out=shifted)
    words ^= shifted
    words *= np.uint64(0x94D049BB133111EB)
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted
    return words
