"""YAML text to values and back: a plain value is what it looks like, no key is written twice, every key has a line."""

from __future__ import annotations

import re
from typing import Any

import yaml

Lines = dict[tuple[str | int, ...], int]
"""The path of a key or list item to the line it stands on, counted from 1."""

_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """Safe, and with fewer surprises than PyYAML's own rules.

    Those read `no` as false, `1e-3` as text, `010` as 8, `12:30` as 750 and let a second key of a name win.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                message = f"the key '{key.value}' is there twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or `_Loader` would take for something other than text."""


def _resolve_alike() -> None:
    rules = [
        ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
        ("float", _FLOAT, "-+.0123456789"),
        ("int", re.compile(r"-?(?:0|[1-9][0-9]*)$"), "-0123456789"),
        ("merge", re.compile(r"<<$"), "<"),
        ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ]
    for tag, expression, first in rules:
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", expression, list(first))
        if tag in ("float", "int"):
            _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", expression, list(first))


_resolve_alike()


def parse(text: str) -> Any:
    """Read YAML text as plain values.

    Raises:
        yaml.YAMLError: The text is not YAML, or a key is written twice in one place.
    """
    return yaml.load(text, Loader=_Loader)


def in_words(error: yaml.YAMLError) -> str:
    """What is wrong with YAML text, and in which line, counted from 1."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    if mark.buffer is not None and mark.buffer[mark.pointer : mark.pointer + 1] == "\t":
        problem = "a tab, where YAML takes blanks only"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def lines_of(text: str) -> Lines:
    """Where each key and list item of a YAML text stands."""
    lines: Lines = {}
    root = yaml.compose(text, Loader=_Loader)
    if root is not None:
        _note(root, (), lines)
    return lines


def _note(node: yaml.Node, path: tuple[str | int, ...], lines: Lines) -> None:
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        children = [(position, item, item) for position, item in enumerate(node.value)]
    else:
        return
    for name, mark, child in children:
        lines[(*path, name)] = mark.start_mark.line + 1
        _note(child, (*path, name), lines)


def dump(document: Any, *, flow: bool = False) -> str:
    """Plain values as YAML text that `parse` reads back as the same values; with `flow` in brackets, on one line."""
    style: dict[str, Any] = {"default_flow_style": True, "width": float("inf")} if flow else {}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)
