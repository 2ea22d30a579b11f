"""The processes of a run begin alike: a failure of one is told once, and config, code and data are the same for all."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from foundation.collectives import everyones, rank, world_size
from foundation.errors import ChiasmaError, ConfigError, ToldByAnother
from foundation.files.hashing import sha256_of
from foundation.files.identity import hash_of
from foundation.wording import listed


@contextmanager
def all_or_none() -> Iterator[None]:
    """Do what may be refused on every process, without collectives inside; if one fails, all do, and one tells it.

    Raises:
        ChiasmaError: What went wrong here, or `ToldByAnother`.
    """
    mine: ChiasmaError | None = None
    try:
        yield
    except ChiasmaError as error:
        mine = error
    told = everyones(None if mine is None else (str(mine), mine.exit_code))
    failed = [error for error in told if error is not None]
    if not failed:
        return
    if mine is not None and told.index(told[rank()]) == rank():
        if len(failed) < world_size():
            mine.where = f"process {rank()} of {world_size()}" + (f", {mine.where}" if mine.where else "")
        raise mine
    refusal = ToldByAnother("another process tells why")
    _, refusal.exit_code = failed[0]
    raise refusal


def refuse_disagreement(identity: Mapping[str, str]) -> None:
    """Refuse to begin where processes differ in what decides the result, or in the code.

    Args:
        identity: By name, as hashes.

    Raises:
        ConfigError: It names what differs, and on which process.
    """
    ours = {**identity, **versions_of_code()}
    theirs = everyones(ours)
    for number, other in enumerate(theirs):
        differ = [key for key in {**theirs[0], **other} if other.get(key) != theirs[0].get(key)]
        if differ:
            raise ConfigError(
                f"process {number} of {len(theirs)} differs from process 0 in {listed(differ)}",
                where="launch",
                fix="start all processes with one config, one cohort and one installation",
            )


def versions_of_code() -> dict[str, str]:
    """What of the installation decides the result, by name."""
    return {"the code of chiasma": code_hash(), "the version of torch": importlib.metadata.version("torch")}


@cache
def code_hash() -> str:
    """Of everything that chiasma runs, also where it was changed without a new version."""
    root = Path(__file__).parents[2]
    files = sorted(path for room in ("foundation", "pretrain", "finetune") for path in (root / room).rglob("*.py"))
    return hash_of([(str(path.relative_to(root)), sha256_of(path)) for path in files])
