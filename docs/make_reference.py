"""Writes configuration.md: every key of the three YAML files, from the pydantic models that read them.

python docs/make_reference.py
"""

from __future__ import annotations

import inspect
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from finetune.config import FinetuneConfig
from foundation.cohort.spec import CohortSpec
from foundation.config import Config
from foundation.yaml_text import dump
from pretrain.config import PretrainConfig

PAGE = Path(__file__).with_name("configuration.md")

FILES: dict[str, type[Config]] = {
    "Of a cohort: cohort.yaml": CohortSpec,
    "Of a pretraining run": PretrainConfig,
    "Of a fine-tuning run": FinetuneConfig,
}

OPENING = """# Every key of every YAML

Written by `docs/make_reference.py` from the code that reads these files; a test fails where the two differ. A key that
is not here is refused, and the message names the nearest one. A relative path begins at the folder of its YAML file.
`${env:NAME}` takes a value from the environment. On a command line, `key=value` changes a key: `fit.epochs=3`.
`null` means none. What is under *default* as "needed" has to be written.
"""

PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", type(None): "null"}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def page() -> str:
    """The text of configuration.md."""
    parts, told = [OPENING], {*FILES.values()}
    for title, root in FILES.items():
        parts.append(f"## {title}\n\n{_table(root)}")
        for model in _inside(root):
            if model not in told:
                told.add(model)
                parts.append(f"### {heading(model)}\n\n{_about(model)}{_table(model)}")
    return "\n".join(parts)


def heading(model: type[Config]) -> str:
    """Of a section: the key that picks a part, or the name of the config in words."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            # A format of images that masks have too, a kind of endpoint that several are.
            each = next((word for word in ("each", "mask") if model.__name__.startswith(word.title())), "")
            each += " " if each else ""
            return f"{each}{name}: {get_args(field.annotation)[0]}"
    words = re.sub(r"(Config|Spec)$", "", model.__name__)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words).capitalize()


def _inside(model: type[Config]) -> list[type[Config]]:
    """The configs that keys of a config hold, each before those inside it."""
    found: list[type[Config]] = []
    for field in model.model_fields.values():
        for one in _configs(field.annotation):
            found += [part for part in (one, *_inside(one)) if part not in found]
    return found


def _configs(annotation: Any) -> list[type[Config]]:
    if inspect.isclass(annotation) and issubclass(annotation, Config):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _configs(inner)]


def _about(model: type[Config]) -> str:
    text = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return f"{text}\n\n" if text and "See `" not in text else ""


def _table(model: type[Config]) -> str:
    rows = ["| key | holds | default | |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        about = re.sub(r"(?<!`)\{(\w+)\}(?!`)", r"`{\1}`", field.description or "")
        cells = (f"`{field.alias or name}`", _holds(field), _default(field), about)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _holds(field: FieldInfo) -> str:
    bounds = [
        f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for name, word in BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([_named(field.annotation), *bounds])


def _named(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, Config):
        return f"[{heading(annotation)}](#{slug(heading(annotation))})"
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin is Annotated:
        return _named(inside[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_named, inside)))
    if origin is list or (origin is tuple and inside[-1] is Ellipsis):
        return f"list of: {_named(inside[0])}"
    if origin is tuple:
        return f"{len(inside)} of: " + " or ".join(dict.fromkeys(map(_named, inside)))
    if origin is dict:
        return f"names, each with: {_named(inside[1])}"
    return "anything"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        set_here = {name for name in type(value).model_fields if getattr(value, name) != _own(value, name)}
        if not set_here and not any(one.is_required() for one in type(value).model_fields.values()):
            return "its defaults" if len(_configs(field.annotation)) == 1 else f"`{{{heading(type(value))}}}`"
        value = value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(value, Path):
        value = str(value)
    return f"`{dump([value], flow=True).strip()[1:-1]}`"


def _own(config: Config, name: str) -> Any:
    default = type(config).model_fields[name].get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def slug(text: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
