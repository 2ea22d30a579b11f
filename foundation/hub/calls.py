"""Calls of a model hub: tried again where it is busy or out of reach, and each failure told in one message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from foundation.errors import ConfigError, StoreError

WAITS = (1.0, 4.0, 15.0, 60.0)
"""Seconds before each further try."""

BUSY = (429, 500, 502, 503, 504)

P = ParamSpec("P")
T = TypeVar("T")


class Caller:
    """Calls functions of `huggingface_hub`, which raise what `_is_passing` knows."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it, again after each of `WAITS` where the failure may pass."""
        for wait in WAITS:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not _is_passing(error):
                    raise
                time.sleep(_asked(error) or wait)
        return function(*args, **kwargs)


@contextmanager
def patiently(where: str) -> Iterator[Caller]:
    """Something that calls functions of a hub; whatever they raise leaves as an error of this project.

    Args:
        where: The address, for messages.

    Raises:
        ConfigError: There is no such repository or revision, or no right to it.
        StoreError: The hub keeps failing, or cannot be reached.
    """
    from huggingface_hub.errors import (
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield Caller()
    except OfflineModeIsEnabled:
        what = "HF_HUB_OFFLINE forbids to ask the hub"
        raise ConfigError(what, where=where, fix="unset it where there is a network") from None
    except RevisionNotFoundError:
        fix = "name a tag, branch or commit that is there"
        raise ConfigError("the repository has no such revision", where=where, fix=fix) from None
    except RepositoryNotFoundError as error:
        raise _refused(where, _status(error) or 404) from None
    except HFValidationError as error:
        raise ConfigError(" ".join(str(error).split())[:200], where=where, fix="correct the name") from None
    except Exception as error:
        status = _status(error)
        if status in (401, 403, 404):
            raise _refused(where, status) from None
        if status is None and not _is_passing(error):
            raise
        said = f"the hub answers {status}" if status else f"the hub cannot be reached ({type(error).__name__})"
        fix = "start the same command again later: what was sent or fetched is not repeated"
        raise StoreError(f"{said}, after {len(WAITS) + 1} tries", where=where, fix=fix) from None


def _refused(where: str, status: int) -> ConfigError:
    if status == 404:
        return ConfigError(
            "there is no such repository, or this token may not see it",
            where=where,
            fix="correct the name, or set HF_TOKEN to a token that may read it",
        )
    return ConfigError(
        "the hub refuses this token" if status == 401 else "this token may not do that",
        where=where,
        fix="set HF_TOKEN to a token of that organisation that may write, or run `hf auth login`",
    )


def _status(error: BaseException) -> int | None:
    return getattr(_response(error), "status_code", None)


def _response(error: BaseException) -> Any:
    """What the hub answered, where an error or what caused it tells."""
    return next((found for one in _causes(error) if (found := getattr(one, "response", None)) is not None), None)


def _asked(error: BaseException) -> float | None:
    """Seconds that the hub asks to wait, at most the longest of `WAITS`."""
    response = _response(error)
    told = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(told), WAITS[-1]) if told.isdigit() else None


def _is_passing(error: BaseException) -> bool:
    """Whether a hub is busy, or a connection was lost or not made."""
    status = _status(error)
    if status is not None:
        return status in BUSY
    if type(error).__name__ == "OfflineModeIsEnabled":
        return False
    names = {kind.__name__ for one in _causes(error) for kind in type(one).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"})


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
