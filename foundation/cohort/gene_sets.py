"""Gene sets from a GMT file: a set per line, name, description and genes, separated by tabs."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from foundation.errors import ConfigError, DataError, nearest


def read_gene_sets(path: Path) -> dict[str, list[str]]:
    """Read a GMT file, plain or with gzip.

    Returns:
        Name of a set to its genes, both in the order of the file, each gene once.

    Raises:
        ConfigError: There is no such file.
        DataError: It cannot be read or is not a GMT file: a line has no genes, a set has no name or appears twice.
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, *others = (part.strip() for part in line.split("\t"))
        genes = [gene for gene in dict.fromkeys(others[1:]) if gene]
        where = f"{path}, line {number}"
        if not name or not genes:
            what = f"gene set '{name}' has no genes" if name else "a gene set has no name"
            raise DataError(what, where=where, fix="write name, description and genes, separated by tabs")
        if name in sets:
            raise DataError(f"gene set '{name}' appears twice", where=where, fix="rename or remove one")
        sets[name] = genes
    if not sets:
        raise DataError("holds no gene sets", where=str(path), fix="name a GMT file")
    return sets


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        # The first two bytes tell, whatever the file is called.
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.gmt*")] if path.parent.is_dir() else []
        fix = nearest(path.name, siblings) if siblings else "correct the path"
        raise ConfigError("no such file", where=str(path), fix=fix) from None
    except UnicodeDecodeError:
        raise DataError("is not text", where=str(path), fix="name a GMT file, in UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"is damaged: {error}", where=str(path), fix="take it from its source again") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), fix="name a GMT file") from None
