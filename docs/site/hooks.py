"""What the site does otherwise than a repository's page: a file that is not part of it is named and not linked."""

from __future__ import annotations

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """Name files outside docs/ by their path from the repository's root."""
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)", _named, markdown)


def _named(link: re.Match[str]) -> str:
    words, path = link[1].replace("\n", " "), link[2]
    return f"`{path}`" if words.strip("`") == path else f"{words} (`{path}`)"
