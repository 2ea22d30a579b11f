"""Numbers and names as they stand in a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what is counted: ``1 patient``, ``2,000 patients``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: ``a, b and c``."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def percent(part: float, whole: float) -> str:
    """A share in words that never rounds something to nothing, or less than all to all."""
    if whole == 0:
        return "–"
    share = 100 * part / whole
    if 0 < share < 1:
        return "<\u00a01\u00a0%"
    if 99 < share < 100:
        return ">\u00a099\u00a0%"
    return f"{share:.0f}\u00a0%"


def shortened(name: str, most: int = 22) -> str:
    """A name cut to at most `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def file_size(size: int) -> str:
    """A number of bytes: ``12.3 MB``."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"
