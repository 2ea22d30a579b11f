"""What must not leave the house: patients, secrets and places of this machine, searched for in every file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

SHORTEST = 3
"""Characters of an identifier that is searched for at all: folds and classes have the names of shorter ones.

It is searched for as a whole string of JSON or YAML, a cell of a table, or the name of a file.
"""

WITHIN_TEXT, NUMBER_WITHIN_TEXT = 4, 7
"""Characters from which it is searched for within text too; and those of one of digits alone, as sizes are."""

BINARY = 6
"""Characters from which an identifier is searched for among numbers, where a shorter one stands by chance."""

SEPARATOR = re.compile(r"(?<=[^\W_])[-_.](?=[^\W_])")
"""Between parts of an identifier, which may be written with another one, and in other cases."""

SECRETS = {
    "a token of a model hub": re.compile(rb"\bhf_[A-Za-z0-9]{20,}"),
    "a key of a store": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a key of a tracker": re.compile(rb"(?i)\b(?:wandb|api)[\w .:=\"']{0,20}\b[0-9a-f]{40}\b"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in a URL": re.compile(rb"\b[a-z][a-z0-9+.-]*://[^/\s:@]{1,64}:[^/\s:@]{3,128}@"),
}

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY", re.IGNORECASE)
"""Of an environment variable whose value must not be in a file."""

SECRET_LENGTH = 12
"""Characters of such a value from which it is searched for."""

ROOTS = "home|Users|root|mnt|scratch|work|data|tmp|var|opt|srv|gpfs|lustre|cluster"
PLACES = re.compile(rf"(?<![\w./:])/(?:{ROOTS})/[\w.+-]+(?:/[\w.+-]+)*")

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
    names = {str(patient) for patient in patients if len(str(patient)) >= SHORTEST}
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            file = _File(path, path.relative_to(folder).as_posix())
            found += [Leak(file.name, what) for what in dict.fromkeys(_of_file(file, names))]
    return found


@dataclass(frozen=True)
class _File:
    """A file, and what can be read in it.

    Attributes:
        path: Of it.
        name: In the folder.
    """

    path: Path
    name: str

    @cached_property
    def content(self) -> bytes:
        """All of it."""
        return self.path.read_bytes()

    @cached_property
    def words(self) -> str:
        """Its text, or what a file of tensors says of itself; and its name."""
        told = self.content if self.path.suffix in TEXT else _header(self.path, self.content)
        return f"{told.decode('utf-8', errors='replace')}\n{self.name}"

    @cached_property
    def strings(self) -> set[str]:
        """Every whole string: of a document its keys and values, as they are after decoding; the cells of a table."""
        parts = set(Path(self.name).with_suffix("").parts)
        text = self.words.removesuffix(f"\n{self.name}")
        if self.path.suffix == ".tsv":
            return parts | {cell.strip() for line in text.splitlines() for cell in line.split("\t")}
        return parts | {string for document in _documents(text) for string in _strings(document)}


def _of_file(file: _File, names: set[str]) -> Iterator[str]:
    numbers = b"" if file.path.suffix in TEXT else file.content
    decoded = "\n".join(file.strings)
    texts = [file.words, decoded]
    loosely = [_loosely(text) for text in texts]
    if (
        names & file.strings
        or any(_stands_in(name, text) for name in names if _is_long(name) for text in texts)
        or any(_stands_in(_loosely(name), text) for name in names if _has_letter(name) for text in loosely)
        or any(name.encode() in numbers for name in names if len(name) >= BINARY and not name.isdigit())
    ):
        yield "the identifier of a patient"
    yield from (what for what, pattern in SECRETS.items() if pattern.search(file.content))
    for variable, value in os.environ.items():
        if SECRET_NAME.search(variable) and len(value) >= SECRET_LENGTH and value.encode() in file.content:
            yield f"the value of {variable}"
    if place := PLACES.search(file.words):
        yield f"a place of this machine, {place[0]}"


def _loosely(text: str) -> str:
    """The same however its letters are written and its parts are separated."""
    return SEPARATOR.sub("-", text.casefold())


def _has_letter(name: str) -> bool:
    return _is_long(name) and any(character.isalpha() for character in name)


def _is_long(name: str) -> bool:
    return len(name) >= (NUMBER_WITHIN_TEXT if name.isdigit() else WITHIN_TEXT)


def _stands_in(name: str, text: str) -> bool:
    """Whether an identifier is in a text and is no part of a longer word; of digits, no part of a number either."""
    if name not in text:
        return False
    around = r"[\w.]" if name.isdigit() else r"[^\W_]"
    return re.search(f"(?<!{around}){re.escape(name)}(?!{around})", text) is not None


def _header(path: Path, content: bytes) -> bytes:
    """What a file of tensors says of itself in words."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")] if path.suffix == ".safetensors" else b""


def _documents(text: str) -> Iterator[object]:
    """What a text is as JSON, as lines of JSON, or as YAML; nothing where it is neither."""
    try:
        yield json.loads(text)
        return
    except ValueError:
        lines = text.splitlines()
    try:
        yield from [json.loads(line) for line in lines if line.strip()]
        return
    except ValueError:
        found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        yield yaml.load(found[1] if found else text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return


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
