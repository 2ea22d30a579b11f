"""Source files as they were found: path below the root, bytes and SHA-256, and one fingerprint of all of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from foundation.cohort.spec import CohortSpec, plain
from foundation.errors import DataError
from foundation.files.hashing import sha256_of


def below_root(path: Path, root: Path) -> str:
    """The path of a file below the root of the sources; of one that lies elsewhere, its name."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def describe_file(path: Path, root: Path) -> tuple[str, int, str]:
    """Path below the root, bytes, SHA-256.

    Raises:
        DataError: It cannot be read.
    """
    if not os.access(path, os.R_OK):
        raise DataError("cannot be read", where=str(path), fix="check that it exists and that you may read it")
    return below_root(path, root), path.stat().st_size, sha256_of(path)


def fingerprint_of(spec: CohortSpec, table_files: list[tuple[str, int, str]], scans: dict) -> str:
    """SHA-256 of the resolved YAML without root and quarantine, of the tables, and of the list of scans."""
    digest = hashlib.sha256()
    document = plain(spec)
    for key in ("root", "quarantine"):
        document.pop(key)
    if not spec.annotations:
        # As if the key did not exist: cohorts without annotations are those of earlier versions.
        document.pop("annotations")
    digest.update(json.dumps(document, sort_keys=True).encode())
    for row in sorted(set(table_files)):
        digest.update(json.dumps(row).encode())
    for name in sorted(scans):
        for key in sorted(scans[name]):
            for channel, choice in sorted(scans[name][key].items()):
                listed = [(below_root(p, spec.root), p.stat().st_size if p.is_file() else 0) for p in choice.scan.paths]
                digest.update(json.dumps([name, key, channel, listed]).encode())
    return digest.hexdigest()
