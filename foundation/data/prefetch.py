"""Shards of the batches to come, fetched in the background while the ones before are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from foundation.cohort.store import PreparedCohort
from foundation.data.sampler import BatchKey

AHEAD = 8
"""Shards that may be on their way, or here, before anybody reads them."""

MOST_BATCHES = 256
"""Batches that are looked ahead at most, where all come from the same few shards."""


class Ahead:
    """An order whose batches are given once their shards are here, while the next shards are on their way.

    Args:
        order: Batches in their order.
        cohort: At a URL.
    """

    def __init__(self, order: Iterable[BatchKey], cohort: PreparedCohort) -> None:
        self.order = order
        self.cohort = cohort

    def __len__(self) -> int:
        """Number of batches, where the order has one."""
        return len(self.order)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[BatchKey]:
        """Give the batches.

        Raises:
            ConfigError, DataError, StoreError: A shard cannot be fetched.
        """
        ahead = min(AHEAD, self.cohort.shards_at_a_time)
        keys, waiting = iter(self.order), deque[tuple[BatchKey, list[int]]]()
        fetched: dict[int, Future[None]] = {}
        unread: set[int] = set()
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
        try:
            while True:
                while len(unread) < ahead and len(waiting) < MOST_BATCHES and (key := next(keys, None)) is not None:
                    shards = np.unique(self.cohort.shards_of(key.rows)).tolist()
                    waiting.append((key, shards))
                    for shard in shards:
                        if shard not in fetched:
                            fetched[shard] = pool.submit(self.cohort.fetch, shard)
                            unread.add(shard)
                if not waiting:
                    return
                key, shards = waiting.popleft()
                for shard in shards:
                    fetched[shard].result()
                unread.difference_update(shards)
                yield key
                wanted = {shard for _, later in waiting for shard in later} | set(shards)
                fetched = {shard: future for shard, future in fetched.items() if shard in wanted}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
