"""The errors a user meets, refusals of the operating system among them: what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Refusal(NamedTuple):
    """Why the operating system refused a file or folder, and what to do about it."""

    what: str
    fix: str


DENIED = Refusal("permission denied", "name a file or folder that you may use, or correct its permissions")
LOST = Refusal("the connection to its disk is lost", "mount it again")
REFUSALS = {
    errno.ENOSPC: Refusal("the disk is full", "make room on the disk"),
    errno.EDQUOT: Refusal("the quota is used up", "make room within your quota"),
    errno.EROFS: Refusal("the disk is read-only", "name a folder that can be written"),
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENOTDIR: Refusal("a file is in the place of a folder", "name another folder"),
    errno.ENAMETOOLONG: Refusal("the name is too long", "name a shorter one"),
    errno.EIO: Refusal("the disk cannot be read or written", "check the disk and its connection"),
    errno.ESTALE: LOST,
    errno.ENOTCONN: LOST,
}
"""Numbers of the operating system's refusals; no other OSError is one."""


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


class ToldByAnother(ChiasmaError):  # noqa: N818  (it is no error of this process)
    """This process ends because of an error that another process of the same run tells."""


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

    @classmethod
    def of(cls, error: OSError, *, where: Path | str = "", then: str = "start it again") -> WriteError | None:
        """A refusal of the operating system in the words of this project.

        Args:
            error: What it raised.
            where: The place, where the error does not name one.
            then: What to do once the cause is mended.

        Returns:
            None where it is no refusal of `REFUSALS`.
        """
        refusal = REFUSALS.get(error.errno or 0)
        if refusal is None:
            return None
        return cls(refusal.what, where=str(error.filename or where), fix=f"{refusal.fix}, then {then}")


class StoreError(ChiasmaError):
    """An object store or a server that keeps failing."""

    exit_code = 1


@contextlib.contextmanager
def writing(place: Path, *, then: str = "start it again") -> Iterator[None]:
    """Turn the operating system's refusals to write into a WriteError; any other OSError goes on as it is.

    Args:
        place: What is written, for the message, where the system does not say.
        then: See `WriteError.of`.

    Raises:
        WriteError: The system refused.
    """
    try:
        yield
    except OSError as error:
        refused = WriteError.of(error, where=place, then=then)
        if refused is None:
            raise
        raise refused from error


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
