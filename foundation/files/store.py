"""Files at a URL, through fsspec: fetched whole, tried again while the store fails, refused in clear words."""

from __future__ import annotations

import errno
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from foundation.errors import ChiasmaError, ConfigError, DataError, StoreError, WriteError
from foundation.files.hashing import sha256_of

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
"""Scheme of a URL to what fsspec needs to read it."""

LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests", "s3fs", "urllib3"}
"""Whose exceptions mean that the store, or the way to it, failed."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Refusals that can only be those of the local disk."""

REFUSED = {401, 403}
TRY_AGAIN = {408, 425, 429}
"""Numbers of HTTP below 500 that a store gives when it wants to be asked again; other ones are answers."""

LONGEST_WAIT = 30.0
SECONDS_BETWEEN_MESSAGES = 2.0


@dataclass(frozen=True)
class Patience:
    """How long a failing store is waited for.

    Attributes:
        attempts: Times that a file is asked for.
        first_wait: Seconds before the second; before each further one twice as many, LONGEST_WAIT at most.
        stalled_after: Seconds without a byte that count as a failure.
    """

    attempts: int = 7
    first_wait: float = 1.0
    stalled_after: float = 60.0

    def wait(self, attempt: int) -> float:
        """Seconds after a failed attempt, counted from 1; drawn, so that many machines do not ask at once."""
        return min(self.first_wait * 2 ** (attempt - 1), LONGEST_WAIT) * random.uniform(0.75, 1.25)


class _IncompleteError(Exception):
    """What came has the wrong size, or another hash."""


class Store:
    """The files below a URL.

    Args:
        url: ``s3://``, ``gs://``, ``http://``, ``https://``, ``file://`` or what else fsspec knows.
        patience: How long it may fail.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self.url = url.rstrip("/")
        self.patience = patience or Patience()
        self._told = 0.0
        self._telling = threading.Lock()

    def __reduce__(self) -> tuple:
        return (Store, (self.url, self.patience))

    def place(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            ConfigError, DataError: It is not there, or may not be read.
            StoreError: The store keeps failing.
        """
        return self._patiently(name, lambda files, path: files.cat_file(path))

    def fetch(self, name: str, to: Path, size: int, sha256: str) -> None:
        """Copy a file to a local one, and check that it is what it should be.

        Raises:
            ConfigError, DataError: It is not there, may not be read, or is another file each time.
            StoreError: The store keeps failing.
            WriteError: The local disk is full or cannot be written.
        """

        def copy(files: Any, path: str) -> None:
            files.get_file(path, str(to))
            came = to.stat().st_size
            if came != size:
                raise _IncompleteError(f"{came} of {size} bytes came")
            if sha256_of(to) != sha256:
                raise _IncompleteError("its hash is not that of cohort.json")

        self._patiently(name, copy, to)

    def _patiently(self, name: str, work: Callable[[Any, str], Any], to: Path | None = None) -> Any:
        began = time.monotonic()
        for attempt in range(1, self.patience.attempts + 1):
            try:
                files = self._files()
                return work(files, files._strip_protocol(self.place(name)))
            except Exception as error:
                refused = self._refusal(error, name, to)
                if refused is not None:
                    raise refused from None
                if attempt == self.patience.attempts:
                    raise self._given_up(error, name, time.monotonic() - began) from None
                wait = self.patience.wait(attempt)
                self._tell(f"{self.place(name)}: {_said(error)}; trying again in {wait:.1f} s")
                time.sleep(wait)
        raise AssertionError("there is at least one attempt")

    def _files(self) -> Any:
        """The file system; fsspec keeps one for each process and thread."""
        import fsspec

        scheme = urlsplit(self.url).scheme.lower()
        try:
            return fsspec.filesystem(scheme, **_options(scheme, self.patience.stalled_after))
        except ImportError:
            package = PACKAGES.get(scheme)
            fix = f"python -m pip install {package}" if package else f"install what fsspec needs for {scheme}://"
            raise ConfigError(
                f"reading {scheme}:// needs a package that is not here", where=self.url, fix=fix
            ) from None
        except ValueError:
            known = ", ".join(sorted(f"{name}://" for name in PACKAGES))
            raise ConfigError(f"nothing reads {scheme}://", where=self.url, fix=f"use one of {known}") from None

    def _refusal(self, error: Exception, name: str, to: Path | None) -> Exception | None:
        """What to raise at once; None where asking again may help."""
        if isinstance(error, ChiasmaError):
            return error
        if isinstance(error, _IncompleteError):
            return None
        if to is not None and isinstance(error, OSError) and (error.errno in FULL or error.filename in (to, str(to))):
            return WriteError.of(error, where=to.parent) or error
        status = _status(error)
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            return DataError(
                "is not there",
                where=self.place(name),
                fix="check the bucket and the folder, and that all files of the prepared cohort were copied",
            )
        if isinstance(error, PermissionError) or status in REFUSED or "Credential" in type(error).__name__:
            return ConfigError(
                f"may not be read ({_said(error)})",
                where=self.place(name),
                fix="give credentials that may read it, as the store's own tools read them, such as AWS_PROFILE, "
                "~/.aws/credentials or GOOGLE_APPLICATION_CREDENTIALS",
            )
        if status is not None and 400 <= status < 500 and status not in TRY_AGAIN:
            return DataError(f"cannot be read ({_said(error)})", where=self.place(name), fix="check the URL")
        ours = not isinstance(error, OSError | EOFError) and type(error).__module__.split(".")[0] not in LIBRARIES
        return error if ours else None

    def _given_up(self, error: Exception, name: str, seconds: float) -> ChiasmaError:
        often = f"in {self.patience.attempts} attempts over {seconds:.0f} s"
        if isinstance(error, _IncompleteError):
            fix = "copy the prepared cohort there again, all of its files"
            return DataError(f"is damaged, {often}: {error}", where=self.place(name), fix=fix)
        return StoreError(
            f"could not be read {often}; last: {_said(error)}",
            where=self.place(name),
            fix="check the network and the store, then start the same command again: it goes on where it stopped",
        )

    def _tell(self, sentence: str) -> None:
        """Several threads fail together: one of them says so, and of several processes the first."""
        from foundation.collectives import rank

        if rank() > 0:
            return
        with self._telling:
            now = time.monotonic()
            if now - self._told >= SECONDS_BETWEEN_MESSAGES or not self._told:
                self._told = now
                print(sentence, file=sys.stderr, flush=True)


def _options(scheme: str, stalled_after: float) -> dict[str, Any]:
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=stalled_after, sock_read=stalled_after)
        return {"client_kwargs": {"timeout": timeout}}
    if PACKAGES.get(scheme) == "s3fs":
        return {"config_kwargs": {"connect_timeout": stalled_after, "read_timeout": stalled_after}}
    return {}


def _status(error: Exception) -> int | None:
    """The number that HTTP gives it, where an exception says one."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    found = getattr(error, "status", None) or getattr(error, "code", None)
    return found if isinstance(found, int) else None


def _said(error: Exception) -> str:
    """An exception in one line; a URL in it loses what may be a signature."""
    text = re.sub(r"\?[^\s'\"]*", "", " ".join(str(error).split()))
    text = re.sub(r"://[^\s/@'\"]*@", "://", text)
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
