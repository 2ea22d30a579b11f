"""The section on retrieval: recall@k, rank and p of each direction, and alignment and uniformity of the views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundation.report.page import GAP, Cell, Page
from foundation.wording import p_number, percent
from pretrain.report.answer import direction


def add_retrieval(page: Page, metrics: Mapping[str, Any]) -> None:
    """Add a table of every direction, and how close and how spread the views are; nothing where none was measured."""
    retrieval = metrics.get("retrieval", {})
    if not retrieval:
        return
    page.section(
        "Retrieval",
        "The view on the left of the arrow is given, and held-out records are ranked by how similar their other view "
        "is to it; only records with both views take part. recall@k: how often the right patient is among the first "
        "k; ties count against the model. p: how often a random assignment of patients does at least as well.",
    )
    rows = [
        [
            direction(name),
            *(
                Cell(percent(result[f"recall@{k}"], 1), shade=result[f"recall@{k}"]) if "recall@1" in result else GAP
                for k in (1, 5, 10)
            ),
            GAP if result.get("before_training") is None else Cell(percent(result["before_training"], 1)),
            Cell(percent(result["chance@10"], 1)) if "chance@10" in result else GAP,
            Cell(f"{result['median_rank']:g}") if "median_rank" in result else GAP,
            Cell(p_number(result["p_value"])) if "p_value" in result else GAP,
            result["n"],
            result.get("skipped", ""),
        ]
        for name, result in retrieval.items()
    ]
    header = [
        "from → to",
        "recall@1",
        "recall@5",
        "recall@10",
        "before training",
        "chance@10",
        "median rank",
        "p",
        "records",
        "",
    ]
    page.table(header, rows)
    alignment = {name: value for name, value in metrics.get("alignment", {}).items() if value is not None}
    uniformity = {name: value for name, value in metrics.get("uniformity", {}).items() if value is not None}
    if alignment:
        rows = [[name.replace("~", " and "), Cell(f"{value:.3f}")] for name, value in alignment.items()]
        page.table(
            ["pair", "alignment"], rows, "Mean squared distance of a record's two views (0 to 4; lower is closer)"
        )
    if uniformity:
        rows = [[name, Cell(f"{value:.2f}")] for name, value in uniformity.items()]
        page.table(["view", "uniformity"], rows, "Spread of the records (0 where all are the same; lower is more even)")
