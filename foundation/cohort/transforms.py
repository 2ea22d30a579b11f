"""Transforms of omics values by name: each changes one value by itself and learns nothing from other patients."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foundation.errors import ConfigError, DataError, nearest

Function = Callable[..., np.ndarray]

_FUNCTIONS: dict[str, tuple[Function, int]] = {}


@dataclass(frozen=True)
class Transform:
    """A transform with its arguments, ready to be called on an array; NaN stays NaN."""

    name: str
    arguments: tuple[float, ...]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Transform every value; raises DataError where it has no meaning for one."""
        return _FUNCTIONS[self.name][0](values, *self.arguments)


def _transform(name: str, arguments: int = 0) -> Callable[[Function], Function]:
    def enter(function: Function) -> Function:
        _FUNCTIONS[name] = (function, arguments)
        return function

    return enter


def parse(text: str) -> Transform:
    """Read a transform as written in YAML: ``log2p1``, ``clip(-5, 5)``.

    Raises:
        ConfigError: The name is unknown, or the arguments do not fit it.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", text)
    if match is None:
        raise ConfigError(f"'{text}' is no transform", fix="write a name, or name(number, number)")
    name, inside = match.group(1), match.group(2)
    if name not in _FUNCTIONS:
        raise ConfigError(f"no transform is called '{name}'", fix=nearest(name, _FUNCTIONS))
    given = [word.strip() for word in inside.split(",")] if inside and inside.strip() else []
    wanted = _FUNCTIONS[name][1]
    try:
        arguments = tuple(float(word) for word in given)
    except ValueError:
        raise ConfigError(f"the arguments of '{text}' are not numbers", fix=f"write {_usage(name)}") from None
    if len(arguments) != wanted or any(np.isnan(argument) for argument in arguments):
        raise ConfigError(f"'{text}': {name} takes {wanted} numbers", fix=f"write {_usage(name)}")
    if name == "clip" and not arguments[0] < arguments[1]:
        raise ConfigError(f"'{text}': the first number must be below the second")
    return Transform(name, arguments)


def apply(names: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Apply transforms in order.

    Args:
        names: As written in YAML.
        values: Any shape, float; not changed.

    Raises:
        ConfigError: A transform is unknown.
        DataError: A value is outside of what a transform is defined for.
    """
    for transform in map(parse, names):
        values = transform(values)
    return values


def _usage(name: str) -> str:
    return f"{name}(low, high)" if name == "clip" else name


def _refuse_negative(values: np.ndarray, name: str) -> None:
    negative = values < 0
    if negative.any():
        raise DataError(
            f"{name} has no meaning for negative values: found {values[negative].flat[0]:g}, "
            f"the lowest is {values[negative].min():g}",
            fix=f"leave {name} out where the values are logarithms already, or put clip(0, inf) before it",
        )


@_transform("log2p1")
def _log2p1(values: np.ndarray) -> np.ndarray:
    _refuse_negative(values, "log2p1")
    return np.log1p(values) / np.asarray(np.log(2), dtype=values.dtype)


@_transform("log1p")
def _log1p(values: np.ndarray) -> np.ndarray:
    _refuse_negative(values, "log1p")
    return np.log1p(values)


@_transform("sqrt")
def _sqrt(values: np.ndarray) -> np.ndarray:
    _refuse_negative(values, "sqrt")
    return np.sqrt(values)


@_transform("clip", arguments=2)
def _clip(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(values, low, high)
