"""What the reports of all runs share: reading metrics.json, and the config and versions at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.errors import DataError
from foundation.report.page import Page


def read_metrics(run: Path) -> dict[str, Any]:
    """The metrics.json of a run folder.

    Raises:
        DataError: It is missing or damaged.
    """
    metrics = read_json(run / "metrics.json")
    if metrics is None:
        raise DataError("is missing", where=str(run / "metrics.json"), fix="name the folder of a run that has ended")
    return metrics


def read_json(path: Path) -> Any:
    """A JSON file of a run folder, or None where there is none.

    Raises:
        DataError: It is damaged.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is not JSON: {error}", where=str(path), fix="run the evaluation again") from None


def config_and_versions(page: Page, run: Path, metrics: Mapping[str, Any]) -> None:
    """Fold away the run's config and the versions of what made it."""
    config = run / "config.yaml"
    if config.is_file():
        with page.folded("config.yaml"):
            page.listing(config.read_text(encoding="utf-8"))
    versions = metrics.get("versions") or {}
    if versions:
        with page.folded("versions"):
            page.listing("\n".join(f"{name} {version}" for name, version in versions.items()))
