"""The section with the map: held-out embeddings in the plane, coloured by class, by site and by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundation.report.page import Page
from foundation.wording import counted
from pretrain.report.figures.embedding_map import map_plot


def add_map(page: Page, drawn: Mapping[str, Any] | None) -> None:
    """Add one picture of the same points for each endpoint of classes, for the site and for the group."""
    if not drawn or not drawn["x"]:
        return
    share = drawn.get("share", [])
    page.section(
        "Map of the embeddings",
        f"The {drawn['view']} embeddings of {counted(len(drawn['x']), 'held-out record')}, in the plane of their two "
        "directions of largest variance"
        + (f" ({share[0]:.0%} and {share[1]:.0%} of it)" if len(share) == 2 else "")
        + ". Every picture shows the same points. Where a cluster is one disease and also one site, the map cannot "
        "tell which of the two formed it.",
    )
    pictures = []
    for name, codes in drawn.get("codes", {}).items():
        classes = drawn["classes"][name]
        named = [str(classes[code]) if code >= 0 else "" for code in codes]
        pictures.append(map_plot(drawn["x"], drawn["y"], named, title=name, caption=""))
    for title, key in (("site", "sites"), ("group", "groups")):
        if any(drawn.get(key, [])):
            pictures.append(map_plot(drawn["x"], drawn["y"], drawn[key], title=title, caption=""))
    page.figures(pictures)
