"""The model card: README.md of a pretrained model's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundation.cohort.manifest import Manifest
from foundation.wording import counted, percent
from pretrain.config import PretrainConfig


def card(config: PretrainConfig, cohort: Manifest, held_out: int, metrics: dict[str, Any]) -> str:
    """README.md of the model folder.

    Args:
        config: Of the run.
        cohort: What it was pretrained on.
        held_out: Patients of it that training did not see.
        metrics: Content of metrics.json.
    """
    cohorts = metrics.get("cohorts", [])
    on = f"the cohort `{cohort.name}`" if len(cohorts) < 2 else f"{len(cohorts)} cohorts"
    by_site = ", as whole sites" if config.held_out.by == "site" else ""
    lines = [
        f"# {config.out.name}",
        "",
        (
            f"A chiasma model pretrained on {on} ({counted(cohort.patients, 'patient')}, "
            f"{held_out:,} of them held out{by_site}). Research use only."
        ),
        "",
        "| held-out retrieval | n | recall@10 | chance | p |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {found['n']} | {found['recall@10']:.3f} | {found['chance@10']:.3f} | {found['p_value']:.4f} |"
        for name, found in metrics["retrieval"].items()
        if "recall@10" in found
    ]
    return "\n".join([*lines, *(_cohorts(cohorts) if len(cohorts) > 1 else ()), *_initial(metrics), ""])


def _initial(metrics: Mapping[str, Any]) -> list[str]:
    """Weights of others that towers began with."""
    rows = [
        f"| {tower} | {origin['name']} | {origin['licence'] or 'not recorded'} | {origin['sha256'][:16] or '–'} |"
        for tower, origin in (metrics.get("initial_weights") or {}).items()
    ]
    return ["", "| tower | began with | licence | SHA-256 |", "| --- | --- | --- | --- |", *rows] if rows else []


def _cohorts(cohorts: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "",
        "| cohort | training patients | records | pairs | share of a batch |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in cohorts:
        counts = " | ".join(f"{entry[key]:,}" for key in ("patients", "records", "pairs"))
        lines.append(f"| {entry['cohort']} | {counts} | {percent(entry['share'], 1)} |")
    return lines
