"""Text files as plain lines: unpacked, UTF-8, one newline at every end, no blank or empty rows; lines counted."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from pathlib import Path
from typing import IO

from foundation.errors import DataError

PIECE_BYTES = 8_000_000
"""Text read at a time."""

EMPTY_ROW = re.compile(rb"\n[\t,; ]+(?=\n)")
"""A line of delimiters alone, as spreadsheets write below a table."""

WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""What Excel's files begin with, since 2007 and before."""


def open_bytes(path: Path) -> IO[bytes] | gzip.GzipFile:
    """The bytes of a file, unpacked where it is gzip, whatever its name says: browsers unpack and keep the name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def encoding_of(start: bytes) -> str:
    """How a text that begins with these bytes is written: UTF-8 unless it has the mark of UTF-16."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def is_empty_row(line: str) -> bool:
    """Whether a line has nothing but delimiters."""
    return not line.strip("\t,; \r\n")


class Lines(io.BufferedReader):
    """The bytes of a text file, whichever system wrote it; see the first line of this file.

    Attributes:
        count: Lines read so far; all of them once the stream is at its end.
    """

    def __init__(self, path: Path) -> None:
        self._plain = _Plain(open_bytes(path), path)
        super().__init__(self._plain, buffer_size=PIECE_BYTES)

    @property
    def count(self) -> int:
        """Lines that are not blank, read from the file so far."""
        return self._plain.lines


class _Plain(io.RawIOBase):
    """Bytes in UTF-8 with every line end a newline, none of two in a row, and one at the end of the file."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, path: Path) -> None:
        self.file = file
        self._path = path
        self._decoder: codecs.IncrementalDecoder | None = None
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

    def _read(self, size: int) -> bytes:
        """About so many bytes of UTF-8, without a byte order mark; none at the end of the file.

        Raises:
            DataError: The file is a workbook.
        """
        piece = self.file.read(size)
        if not self._begun:
            self._begun = True
            if piece.startswith(WORKBOOKS):
                raise DataError(
                    "is an Excel workbook or another zip archive, not text",
                    where=str(self._path),
                    fix="open it in the spreadsheet and save the sheet as CSV UTF-8",
                )
            if encoding_of(piece) == "utf-16":
                self._decoder = codecs.getincrementaldecoder("utf-16")()
            piece = piece.removeprefix(codecs.BOM_UTF8)
        if self._decoder is None:
            return piece
        text = self._decoder.decode(piece, final=not piece)
        while piece and not text:
            piece = self.file.read(size)
            text = self._decoder.decode(piece, final=not piece)
        return text.encode()

    def _next(self) -> bytes:
        piece = self._read(PIECE_BYTES)
        if not piece:
            self._at_end = True
            plain = b"" if self._ended_line else b"\n"
        else:
            # A return at the end of a piece may be the first half of a line end.
            while piece.endswith(b"\r") and (more := self._read(1)):
                piece += more
            plain = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in piece else piece
            while b"\n\n" in plain:
                plain = plain.replace(b"\n\n", b"\n")
            if self._ended_line:
                plain = plain.removeprefix(b"\n")
            plain = EMPTY_ROW.sub(b"", plain)
        if plain:
            self._ended_line = plain.endswith(b"\n")
        self.lines += plain.count(b"\n")
        return plain
