"""YAML and key=value overrides into a validated config that names the nearest key for a wrong one, and back to YAML."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from foundation.environment import Environment
from foundation.errors import ConfigError, nearest
from foundation.urls import is_url, refuse_secrets
from foundation.yaml_text import Lines, dump, in_words, lines_of, parse


class Config(BaseModel):
    """Base of every config: frozen, typed, and closed to keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        populate_by_name=True,
        coerce_numbers_to_str=True,  # A sample type, a class or a group may be written like a number.
    )

    _environment: Environment = PrivateAttr(default_factory=Environment)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = set(cls.model_fields) | {f.alias for f in cls.model_fields.values() if f.alias}
            for key in data:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key '{key}'; {hint}",
                        {"key": str(key), "hint": nearest(str(key), known)},
                    )
        return data

    def to_yaml(self) -> str:
        """The resolved config as YAML, with ``${env:NAME}`` put back where a value came from there."""
        return dump(self._environment.hide(self.model_dump(mode="json", by_alias=True)))

    def shareable(self) -> dict[str, Any]:
        """The resolved config as others may see it: ``${env:NAME}`` put back, and of a path its last part alone."""
        return self._environment.hide(_without_folders(self.model_dump(by_alias=True), self._environment))


def _without_folders(value: Any, environment: Environment) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item, environment) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item, environment) for item in value]
    # References first: the last part of what a variable stands for is no longer known to be secret.
    return Path(environment.hide(str(value))).name if isinstance(value, Path) or is_url(value) else value


class _Typed(str):
    """Text from the command line, where a relative path starts at the current folder."""


def _resolve(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str | Path):
        raise ValueError("needs a path")
    path = os.path.expanduser(value)
    folder = Path.cwd() if isinstance(value, _Typed) else (info.context or {}).get("folder")
    return Path(path) if folder is None else Path(os.path.normpath(folder / path))


YamlPath = Annotated[Path, BeforeValidator(_resolve)]
"""A path that, when relative, starts at the folder of the YAML file it is written in.

Given as an override on the command line, it starts at the current folder, as paths typed there do.
"""


def _resolve_place(value: Any, info: ValidationInfo) -> Any:
    if not is_url(value):
        return _resolve(value, info)
    # Refused at once: the message of a value that does not fit would show it.
    refuse_secrets(value)
    return str(value).rstrip("/")


Place = Annotated[Path | str, BeforeValidator(_resolve_place)]
"""A folder as `YamlPath` has it, or a URL such as ``s3://bucket/folder``."""

AnyConfig = TypeVar("AnyConfig", bound=Config)


def load_config(model: type[AnyConfig], path: Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a YAML file, apply overrides, and validate.

    Args:
        model: The config class to validate against.
        path: The YAML file.
        overrides: ``dotted.key=value`` strings; a value is read as YAML.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value does not fit.
    """
    document, lines = _read(path)
    written = copy.deepcopy(document)
    for override in overrides:
        changed = _apply(document, override)
        # What is wrong with a key, or with one that holds it, then need not be in the file.
        lines = {place: line for place, line in lines.items() if place[: len(changed)] != changed[: len(place)]}
    environment = Environment()
    context = {"folder": path.resolve().parent}
    filled = environment.fill(document, where=str(path))
    try:
        config = model.model_validate(filled, context=context)
    except ValidationError as error:
        found = environment.hide(_describe(error, document, lines))
        if overrides and _is_valid(model, Environment().fill(written, where=str(path)), context):
            raise ConfigError(found, where="command line", fix="correct the override") from None
        fix = "correct the file or the override" if overrides else "correct the file"
        raise ConfigError(found, where=str(path), fix=fix) from None
    config._environment = environment
    return config


def _read(path: Path) -> tuple[dict[str, Any], Lines]:
    where = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        document, lines = parse(text), lines_of(text)
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("[!.]*.y*ml")] if path.parent.is_dir() else []
        fix = nearest(path.name, siblings) if siblings else "correct the path"
        raise ConfigError("no such file", where=where, fix=fix) from None
    except UnicodeDecodeError:
        raise ConfigError("is not text", where=where, fix="name a YAML file, in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where, fix="name a YAML text file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {in_words(error)}", where=where, fix="correct the syntax") from None
    except RecursionError:
        raise ConfigError("a part of it contains itself", where=where, fix="remove the anchor") from None
    if not isinstance(document, dict):
        raise ConfigError("holds no keys", where=where, fix="write `key: value` lines")
    return document, lines


def _apply(document: dict[str, Any], override: str) -> tuple[str | int, ...]:
    """Set one key of `document`; returns its place."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"'{override}' is not key=value", where="command line", fix="write it as section.key=value")
    try:
        value = _typed(parse(text))
    except yaml.YAMLError:
        raise ConfigError(
            f"the value of '{dotted}' is not valid YAML: {text}", where="command line", fix="put it in quotes"
        ) from None
    node: Any = document
    place: list[Any] = []
    for key in keys:
        if place:
            node = _child(node, place[-1], dotted)
        place.append(_position(node, key, dotted) if isinstance(node, list) else key)
    node[place[-1]] = value
    return tuple(place)


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return _Typed(value) if isinstance(value, str) else value


def _child(node: Any, key: Any, dotted: str) -> Any:
    if isinstance(node, dict) and node.get(key) is None:
        node[key] = {}
    child = node[key]
    if not isinstance(child, dict | list):
        raise ConfigError(
            f"'{key}' in '{dotted}' holds a value, not keys", where="command line", fix=f"set '{key}' as a whole"
        )
    return child


def _position(node: list[Any], key: str, dotted: str) -> int:
    if not key.isdecimal() or int(key) >= len(node):
        raise ConfigError(
            f"'{key}' in '{dotted}' is not a position in a list of {len(node)}",
            where="command line",
            fix="count from 0",
        )
    return int(key)


def _is_valid(model: type[Config], document: Any, context: dict[str, Any]) -> bool:
    """Whether a document is valid as it is."""
    try:
        model.model_validate(document, context=context)
    except ValidationError:
        return False
    return True


def _describe(error: ValidationError, document: dict[str, Any], lines: Lines) -> str:
    """One line per wrong key, with its line in the file, in the order of the findings."""
    messages: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        place, value = _find(item["loc"], document)
        key = (*place, item.get("ctx", {})["key"]) if item["type"] == "unknown_key" else place
        if item["type"] == "missing":
            place = (*place, item["loc"][-1])
        name = ".".join(map(str, place)) or "top level"
        name = f"line {lines[key]}, {name}" if key in lines else name
        # The value as written: what a reference stands for may be secret.
        given = f" (given: {_plain(value)!r})" if isinstance(value, str | int | float) else ""
        messages.setdefault(name, []).append(_message(item) + given)
    return "\n  ".join(f"{name}: {'; or '.join(dict.fromkeys(found))}" for name, found in messages.items())


def _find(location: Sequence[Any], document: Any) -> tuple[tuple[str | int, ...], Any]:
    # pydantic mixes the names of union members into its locations; only keys that are written are shown.
    place: tuple[str | int, ...] = ()
    for part in location:
        if (isinstance(document, dict) and part in document) or (
            isinstance(document, list) and isinstance(part, int) and part < len(document)
        ):
            place, document = (*place, part), document[part]
    return place, document


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _message(item: ErrorDetails) -> str:
    context: Mapping[str, Any] = item.get("ctx", {})
    if item["type"] == "missing":
        return "has to be given"
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "needs keys of its own, as `key: value` lines"
    if item["type"] == "too_short":
        return f"needs {context['min_length']} or more"
    if item["type"] == "union_tag_not_found":
        return f"needs the key {context['discriminator']}"
    if item["type"] == "union_tag_invalid":
        known = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
        return f"no {context['discriminator']} is called '{context['tag']}'; {nearest(context['tag'], known)}"
    return item["msg"].removeprefix("Value error, ")
