"""The errors a user can cause or meet: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ChiasmaError(Exception):
    """An error with a message for the person at the keyboard.

    Args:
        what: What is wrong, in one sentence.
        where: The file, key, row or patient it was found in.
        fix: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  what to do: {self.fix}" if self.fix else head

    def __reduce__(self) -> tuple:
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[ChiasmaError], what: str, where: str, fix: str) -> ChiasmaError:
    return kind(what, where=where, fix=fix)


class ConfigError(ChiasmaError):
    """A YAML file, an override or a flag that cannot be used."""

    exit_code = 2


class DataError(ChiasmaError):
    """A source file, a record or a prepared cohort that cannot be used."""

    exit_code = 2


class CheckpointError(ChiasmaError):
    """A checkpoint or model folder that is damaged, incomplete or does not fit."""

    exit_code = 2


class WriteError(ChiasmaError):
    """A place that cannot be written: a full disk, a folder without permission, a lost mount."""

    exit_code = 1


def nearest(name: str, known: Iterable[str], *, list_up_to: int = 12) -> str:
    """Name the known word closest to `name`, or list the known ones where none is close.

    Returns:
        A phrase that completes a sentence, such as ``did you mean 'spacing'?``.
    """
    known = sorted(set(known))
    folded = {word.casefold(): word for word in reversed(known)}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    if not known:
        return "nothing is known here"
    listed = ", ".join(known[:list_up_to])
    rest = len(known) - list_up_to
    return f"known: {listed}" + (f" and {rest} more" if rest > 0 else "")
