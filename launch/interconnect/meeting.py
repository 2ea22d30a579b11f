"""Where processes wait for each other: the store by which torchrun joined them, which knows who did not come."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from foundation.errors import ChiasmaError, ToldByAnother
from foundation.wording import listed

SLICE = 1.0
"""Seconds for which the store is asked at a time: in between, this process hears signals."""

GRACE = 5.0
"""Seconds within which the others fail too, when something between them fails here."""

MOST = 8
"""Processes that are named, where many are absent."""


class Meeting:
    """All processes that were started together, before and beside torch's groups of them.

    It needs no collective, so that it can tell who is absent from one.

    Args:
        timeout: Seconds that a process waits for the others.

    Raises:
        ChiasmaError: Nobody answers where the processes are to meet.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self._times = 0
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # Torchrun opens the store; whoever starts processes without it leaves that to the first.
        opens = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        try:
            store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]  (it is documented)
                *place,
                is_master=opens,
                timeout=timedelta(seconds=timeout),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except dist.DistError:
            raise ChiasmaError(
                f"nobody answers at {place[0]}:{place[1]}, where all processes meet",
                where=self._name(self.rank, socket.gethostname()),
                fix="check that the first node runs, and that this one may open connections to it",
            ) from None
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"interconnect/{start}", store)
        self._store.set(f"host/{self.rank}", socket.gethostname())

    def wait(self, reason: str) -> float:
        """Wait until all processes are here.

        Args:
            reason: What they come for, for the message.

        Returns:
            Seconds waited; the last one to come waits for nobody.

        Raises:
            ChiasmaError: It names who did not come within the timeout; `ToldByAnother` where another has said it.
        """
        with self._while_the_store_answers():
            began = time.monotonic()
            absent = self._absent(self.timeout)
            if absent:
                self._refuse(
                    f"{self._names(absent)} did not answer within {self.timeout:g} s, "
                    f"before {reason}; {self.size} processes were started",
                    fix="look at its log, its node and its network; --timeout SECONDS waits longer",
                )
            return time.monotonic() - began

    @contextmanager
    def for_all(self, doing: str) -> Iterator[None]:
        """Begin something together, and find out who is absent if it fails.

        Args:
            doing: What is done, for the message.

        Raises:
            ChiasmaError: Somebody did not come, was lost, or what was done failed among those who are here.
        """
        self.wait(doing)
        try:
            yield
        except RuntimeError as error:
            with self._while_the_store_answers():
                absent = self._absent(min(GRACE, self.timeout))
                if absent:
                    self._refuse(
                        f"{self._names(absent)} did not answer during {doing}",
                        fix="look at its log, its node and its network",
                    )
                self._refuse(
                    f"all processes are there, and {doing} failed: {_what(error)}",
                    fix="check that nodes may open connections to each other on any port, and name the network that "
                    "they share: GLOO_SOCKET_IFNAME, and of GPUs NCCL_SOCKET_IFNAME",
                )

    def _absent(self, timeout: float) -> list[int]:
        """Come here, and find out who has not within some seconds."""
        self._times += 1
        here = f"{self._times}"
        self._store.set(f"{here}/{self.rank}", "")
        if self._store.add(f"{here}/number", 1) == self.size:
            self._store.set(f"{here}/all", "")
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            try:
                self._store.wait([f"{here}/all"], timedelta(seconds=min(SLICE, left)))
                return []
            except dist.DistStoreError:
                continue
        return [rank for rank in range(self.size) if not self._store.check([f"{here}/{rank}"])]

    def _refuse(self, what: str, *, fix: str) -> None:
        """End, and say why if nobody has said it yet."""
        if self._store.add("told", 1) == 1:
            raise ChiasmaError(what, fix=fix)
        # Torchrun shows the log of the one that ends first.
        time.sleep(SLICE)
        raise ToldByAnother("another process tells why")

    @contextmanager
    def _while_the_store_answers(self) -> Iterator[None]:
        try:
            yield
        except dist.DistError as error:
            raise ChiasmaError(
                f"the node where all processes meet was lost: {_what(error)}",
                where=self._name(self.rank, socket.gethostname()),
                fix="look at the log of the first process and at its node",
            ) from None

    def _names(self, ranks: list[int]) -> str:
        hosts = [self._store.get(f"host/{r}").decode() if self._store.check([f"host/{r}"]) else "" for r in ranks]
        named = [self._name(rank, host) for rank, host in zip(ranks, hosts, strict=True)]
        return listed(named if len(named) <= MOST else [*named[:MOST], f"{len(named) - MOST} more"])

    @staticmethod
    def _name(rank: int, host: str) -> str:
        return f"process {rank} on {host}" if host else f"process {rank}"


def _what(error: BaseException) -> str:
    """What torch says, without its frames."""
    return " ".join(str(error).partition("Exception raised from")[0].split())
