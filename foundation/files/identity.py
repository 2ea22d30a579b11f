"""The identity of a run as hashes, key by key, so that a run that was changed is refused by the key's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.errors import CheckpointError
from foundation.wording import listed


def hash_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hashes_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys of a config, as one writes them on the command line, to hashes of their values."""
    return {key: hash_of(value) for key, value in _leaves(document)}


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def refuse_another(theirs: Mapping[str, str], ours: Mapping[str, str], where: Path) -> None:
    """Refuse to go on with what belongs to another run.

    Args:
        theirs: Identity of what is there.
        ours: Identity of this run.
        where: For the message.

    Raises:
        CheckpointError: They differ; it names what.
    """
    changed = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
    if changed:
        raise CheckpointError(
            f"belongs to another run: {listed(changed)} changed since",
            where=str(where),
            fix="undo the change to resume, or give the new run another `out`",
        )
