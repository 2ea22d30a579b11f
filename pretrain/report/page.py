"""The page of a pretraining report: which sections it has, in which order, and where the run comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.errors import DataError
from foundation.report.page import Page
from foundation.report.run import config_and_versions, read_json, read_metrics
from pretrain.report.answer import headline
from pretrain.report.sections.cohorts import add_cohorts
from pretrain.report.sections.curves import add_curves
from pretrain.report.sections.embedding_map import add_map
from pretrain.report.sections.key_numbers import add_key_numbers
from pretrain.report.sections.patterns import add_patterns
from pretrain.report.sections.probes import add_probes
from pretrain.report.sections.retrieval import add_retrieval

FILE = "report.html"


def write_report(run: Path) -> None:
    """Write ``report.html`` into a run folder, from its metrics; no patient is named on the page.

    Args:
        run: Holds metrics.json, and as far as there are any metrics.jsonl, config.yaml and embedding_map.json.

    Raises:
        DataError: metrics.json is missing, or a file is damaged.
        OSError: The disk is full or read-only; nothing half written is left.
    """
    metrics = read_metrics(run)
    rows = _read_rows(run / "metrics.jsonl")
    page = Page(f"Pretraining on {metrics.get('cohort', 'a cohort')}", headline(metrics.get("retrieval", {})))
    add_key_numbers(page, metrics, rows)
    add_retrieval(page, metrics)
    add_probes(page, metrics)
    add_map(page, read_json(run / "embedding_map.json"))
    add_curves(page, rows)
    add_cohorts(page, metrics.get("cohorts", []))
    add_patterns(page, metrics.get("patterns_seen", {}))
    _provenance(page, run, metrics)
    page.write(run / FILE)


def _provenance(page: Page, run: Path, metrics: Mapping[str, Any]) -> None:
    page.section("Config and versions")
    parameters = metrics.get("parameters")
    if isinstance(parameters, Mapping):
        page.table(["part", "parameters"], [[name, int(count)] for name, count in parameters.items()])
    config_and_versions(page, run, metrics)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise DataError(
                f"line {number} is not JSON", where=str(path), fix="remove the line: the run was stopped as it wrote"
            ) from None
    return rows
