"""A registry of parts by name, each with its config; the folder of a registry is imported by itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar, Union

from pydantic import Field

from foundation.config import Config
from foundation.errors import ConfigError, nearest

Part = TypeVar("Part", bound=type)


class Registry(Generic[Part]):
    """Names and the classes behind them, for one kind of part.

    A part is a class with a nested or assigned ``Config`` whose literal field `tag` is the
    part's own name; that field picks the part in YAML.

    Args:
        kind: What the parts are, for messages: ``image source``, ``tower``.
        tag: The config key that holds the name, such as ``format``.
    """

    def __init__(self, kind: str, tag: str) -> None:
        self.kind = kind
        self.tag = tag
        self._parts: dict[str, Part] = {}

    def register(self, name: str) -> Callable[[Part], Part]:
        """Class decorator that enters a part under `name`.

        Raises:
            ConfigError: The name is taken, or the part's config does not carry it.
        """

        def enter(part: Part) -> Part:
            if name in self._parts:
                raise ConfigError(
                    f"{self.kind} '{name}' is registered twice",
                    where=f"{part.__module__}.{part.__qualname__}",
                    fix=f"rename one; the other is {self._parts[name].__module__}",
                )
            field = part.Config.model_fields.get(self.tag)
            if field is None or getattr(field.annotation, "__args__", None) != (name,):
                raise ConfigError(
                    f"the config of {self.kind} '{name}' must declare {self.tag}: Literal['{name}']",
                    where=f"{part.__module__}.{part.__qualname__}",
                )
            self._parts[name] = part
            return part

        return enter

    def __getitem__(self, name: str) -> Part:
        if name not in self._parts:
            raise ConfigError(f"no {self.kind} is called '{name}'", fix=nearest(name, self._parts))
        return self._parts[name]

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._parts)

    def configs(self) -> Any:
        """The type of "any registered part's config", told apart by the tag; for pydantic fields.

        Raises:
            ConfigError: Nothing is registered yet.
        """
        if not self._parts:
            raise ConfigError(f"no {self.kind} is registered", fix="import the folder of its parts first")
        members = [self._parts[name].Config for name in self.names()]
        if len(members) == 1:
            return members[0]
        return Annotated[Union[tuple(members)], Field(discriminator=self.tag)]  # noqa: UP007

    def build(self, config: Config, *args: Any, **kwargs: Any) -> Any:
        """Make the part that `config` belongs to; the config is its first argument."""
        return self[getattr(config, self.tag)](config, *args, **kwargs)


def import_folder(package: str, path: list[str]) -> None:
    """Import every module of a package, so that its parts register themselves."""
    for module in sorted(info.name for info in pkgutil.iter_modules(path)):
        importlib.import_module(f"{package}.{module}")
