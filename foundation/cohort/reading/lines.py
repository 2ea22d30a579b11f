"""Text files as plain lines: unpacked, no byte order mark, one newline at every end, no blank lines; lines counted."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO

PIECE_BYTES = 8_000_000
"""Text read at a time."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(io.BufferedReader):
    """The bytes of a text file, whichever system wrote it; see the first line of this file.

    Attributes:
        count: Lines read so far; all of them once the stream is at its end.
    """

    def __init__(self, path: Path) -> None:
        self._plain = _Plain(gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb"))
        super().__init__(self._plain, buffer_size=PIECE_BYTES)

    @property
    def count(self) -> int:
        """Lines that are not blank, read from the file so far."""
        return self._plain.lines


class _Plain(io.RawIOBase):
    """Bytes with every line end a newline, none of two in a row, and one at the end of the file."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self.file = file
        self.lines = 0
        self._rest = b""
        self._ended_line = True
        self._begun = False
        self._at_end = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest and not self._at_end:
            self._rest = self._next()
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _next(self) -> bytes:
        piece = self.file.read(PIECE_BYTES)
        if not self._begun:
            self._begun = True
            piece = piece.removeprefix(BYTE_ORDER_MARK)
        if not piece:
            self._at_end = True
            plain = b"" if self._ended_line else b"\n"
        else:
            # A return at the end of a piece may be the first half of a line end.
            while piece.endswith(b"\r") and (more := self.file.read(1)):
                piece += more
            plain = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in piece else piece
            while b"\n\n" in plain:
                plain = plain.replace(b"\n\n", b"\n")
            if self._ended_line:
                plain = plain.removeprefix(b"\n")
        if plain:
            self._ended_line = plain.endswith(b"\n")
        self.lines += plain.count(b"\n")
        return plain
