"""What must not leave the house: patients, secrets and places of this machine, searched for in every file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FEWEST = 3
"""Characters of an identifier; shorter ones are the names of folds and classes too, and are not searched for."""

BINARY = 8
"""Characters from which an identifier is searched for among numbers, where a shorter one may stand by chance."""

SECRETS = {
    "a token of a model hub": re.compile(rb"\bhf_[A-Za-z0-9]{20,}"),
    "a key of a store": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in a URL": re.compile(rb"\b[a-z][a-z0-9+.-]*://[^/\s:@]{1,64}:[^/\s:@]{3,128}@"),
}

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY", re.IGNORECASE)
"""Of an environment variable whose value must not be in a file."""

SECRET_LENGTH = 12
"""Characters of such a value from which it is searched for."""

PLACES = re.compile(
    rb"(?<![\w./:])/(?:home|Users|root|mnt|scratch|work|data|tmp|var|gpfs|lustre)/[\w.+-]+(?:/[\w.+-]+)*"
)

TEXT = {".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".tsv", ".html"}


@dataclass(frozen=True)
class Leak:
    """Something that must not leave.

    Attributes:
        file: Path in the folder.
        what: Kind of thing, never the thing itself.
    """

    file: str
    what: str


def leaks(folder: Path, patients: Iterable[str]) -> list[Leak]:
    """Search a folder.

    Args:
        folder: All of its files are read.
        patients: Identifiers that must not be in any.
    """
    names = {str(patient) for patient in patients if len(str(patient)) >= FEWEST}
    # A short number may be any number of a text; a whole string of JSON or a cell of a table it is not by chance.
    words = {name for name in names if name.isdigit() and len(name) < BINARY}
    anywhere = sorted(name.encode() for name in names - words)
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found += [Leak(name, what) for what in dict.fromkeys(_of_file(path, name, anywhere, words))]
    return found


def _of_file(path: Path, name: str, anywhere: list[bytes], words: set[str]) -> Iterator[str]:
    content, is_text = path.read_bytes(), path.suffix in TEXT
    told = (content if is_text else _header(path, content)) + b"\n" + name.encode()
    numbers = b"" if is_text else content
    long = [one for one in anywhere if len(one) >= BINARY]
    if _any_of(anywhere, told) or _any_of(long, numbers) or (is_text and words & _words(path, content)):
        yield "the identifier of a patient"
    yield from (what for what, pattern in SECRETS.items() if pattern.search(content))
    for variable, value in os.environ.items():
        if SECRET_NAME.search(variable) and len(value) >= SECRET_LENGTH and value.encode() in content:
            yield f"the value of {variable}"
    if place := PLACES.search(told):
        yield f"a place of this machine, {place[0].decode(errors='replace')}"


def _header(path: Path, content: bytes) -> bytes:
    """What a file of tensors says of itself in words."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")] if path.suffix == ".safetensors" else b""


def _any_of(identifiers: list[bytes], content: bytes) -> bool:
    """Whether any identifier is there, not as a part of a longer word."""
    here = [re.escape(one) for one in identifiers if one in content]
    return any(re.search(rb"(?<![A-Za-z0-9])" + one + rb"(?![A-Za-z0-9])", content) for one in here)


def _words(path: Path, content: bytes) -> set[str]:
    """Whole strings of JSON, and keys; cells of a table; of other text nothing, as a short word may be any."""
    text = content.decode("utf-8", errors="replace")
    if path.suffix == ".tsv":
        return {cell.strip() for line in text.splitlines() for cell in line.split("\t")}
    if path.suffix not in (".json", ".jsonl"):
        return set()
    try:
        documents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError:
        documents = [json.loads(path.read_text(encoding="utf-8"))]
    return {word for document in documents for word in _strings(document)}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
