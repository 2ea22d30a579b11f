"""Numbers, lists and names as words for sentences and tables."""

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


def duration(seconds: float) -> str:
    """A time: ``3 min 32 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def p_number(p_value: float) -> str:
    """A p-value in a table: ``0.012``, ``< 0.001``."""
    return "<\u00a00.001" if p_value < 0.001 else f"{p_value:.2g}"


def p_text(p_value: float) -> str:
    """A p-value in a sentence: ``p = 0.012``, ``p < 0.001``."""
    return f"p\u00a0{p_number(p_value)}" if p_value < 0.001 else f"p\u00a0=\u00a0{p_number(p_value)}"


def decimal(value: float | None, *, signed: bool = False) -> str:
    """A number with three digits after the point and, on request, its sign; a dash where there is none."""
    if value is None:
        return "–"
    rounded = round(value, 3) + 0.0
    return f"{rounded:{'+' if signed else ''}.3f}".replace("-", "−")


def interval(bounds: Sequence[float | None] | None, *, signed: bool = False) -> str:
    """An interval: ``0.651 to 0.770``; a dash where there is none."""
    if not bounds or None in bounds:
        return "–"
    return " to ".join(decimal(bound, signed=signed) for bound in bounds)
