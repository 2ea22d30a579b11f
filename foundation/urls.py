"""URLs in the place of folders, without secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from foundation.errors import ConfigError


def is_url(place: object) -> bool:
    """Whether a place is a URL such as ``s3://bucket/folder``, and no path."""
    return isinstance(place, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def refuse_secrets(url: str) -> None:
    """Refuse a URL that holds a password or a signature, which would end in config.yaml and in logs.

    Raises:
        ConfigError: It does; what it holds is not in the message.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "a URL may hold no user, password, signature or other text after '?' or '#'",
            where=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            fix="leave them out, and give credentials as the store's own tools read them, such as AWS_PROFILE, "
            "~/.aws/credentials or GOOGLE_APPLICATION_CREDENTIALS",
        )
