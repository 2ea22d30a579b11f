"""``${env:NAME}`` in a config: filled in when it is read, taken out again before it is written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from foundation.errors import ConfigError
from foundation.yaml_text import parse

_REFERENCE = re.compile(r"\$\{env:([^}]*)\}?")
_WELL_WRITTEN = re.compile(r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}")
_Place = tuple[str | int, ...]


@dataclass
class Environment:
    """What was filled in, so that it can be taken out.

    Attributes:
        texts: A value of the environment to the reference that it came from.
        wholes: The place of a text with references to that text as written and as filled in.
    """

    # Two configs are equal if their values are, wherever those came from.
    texts: dict[str, str] = field(default_factory=dict, compare=False)
    wholes: dict[_Place, tuple[str, str]] = field(default_factory=dict, compare=False)

    def fill(self, value: Any, *, where: str, place: _Place = ()) -> Any:
        """The same document with every reference replaced by its value.

        Raises:
            ConfigError: A variable is not set, or a reference is not written as one.
        """
        if isinstance(value, dict):
            return {key: self.fill(item, where=where, place=(*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, where=where, place=(*place, i)) for i, item in enumerate(value)]
        if not isinstance(value, str) or "${env:" not in value:
            return value
        filled = type(value)(_REFERENCE.sub(lambda match: self._look_up(match, where), value))
        self.wholes[place] = (value, filled)
        return filled

    def hide(self, value: Any, place: _Place = ()) -> Any:
        """The same document with the references back in place of what they stood for."""
        if isinstance(value, dict):
            return {key: self.hide(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hide(item, (*place, i)) for i, item in enumerate(value)]
        if isinstance(value, str):
            # All at once: one value may be part of another, or of the word `env` itself.
            either = "|".join(map(re.escape, sorted(self.texts, key=len, reverse=True)))
            return re.sub(either, lambda match: self.texts[match.group()], value) if either else value
        # A number or a truth value holds no text to search for; it is known by its place.
        written, filled = self.wholes.get(place, ("", ""))
        return written if written and _means(filled, value) else value

    def _look_up(self, match: re.Match[str], where: str) -> str:
        name, reference = match.group(1), match.group(0)
        if not _WELL_WRITTEN.fullmatch(reference):
            raise ConfigError(f"'{reference}' names no variable", where=where, fix="write it as ${env:NAME}")
        text = os.environ.get(name)
        if text is None:
            raise ConfigError(f"environment variable {name} is not set", where=where, fix=f"export {name}=…")
        # A path may have been tidied since it was filled in.
        for variant in {text, os.path.normpath(os.path.expanduser(text))}:
            if text and variant != ".":
                self.texts[variant] = reference
        return text


def _means(text: str, value: Any) -> bool:
    try:
        return parse(text) == value
    except yaml.YAMLError:
        return False
