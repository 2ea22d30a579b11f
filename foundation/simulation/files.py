"""Files whose bytes follow from their content alone, gzipped or not."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_gzip(path: Path, content: bytes) -> None:
    """Write bytes gzipped, without the name and the time that gzip would keep."""
    with path.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        packed.write(content)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as tab-separated text, gzipped where the name says so; an absent value (None) is left empty."""
    lines = ["\t".join("" if value is None else str(value) for value in row) for row in (header, *rows)]
    content = ("\n".join(lines) + "\n").encode()
    if path.suffix == ".gz":
        write_gzip(path, content)
    else:
        path.write_bytes(content)
