"""The README's tables of fine-tuning runs, from their metrics.json: every method for every task, and for every group.

python benchmarks/tables.py runs/tcga-pancancer-survival runs/rosmap-diagnosis
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COLUMNS = ("kept", "ours", "frozen probe", "from scratch", "clinical", "image", "omics", "clinical + omics")


def methods_of(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Method to its scores."""
    return {"kept": entry["kept"], "ours": entry, **entry["baselines"]}


def score(found: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    """A mean without its zero, with the interval on request; a dash where there is none."""
    if not found or found.get("mean") is None:
        return "–"
    low, high = (_short(value) for value in found["ci95"])
    return f"{_short(found['mean'])} [{low}, {high}]" if interval else _short(found["mean"])


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def tasks_of(run: Path) -> list[dict[str, Any]]:
    """What metrics.json says of each task."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return [metrics, *metrics["other_tasks"]]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print a table of tasks, then of each task that has groups one of these."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    entries = [(run.name, entry) for run in parser.parse_args().runs for entry in tasks_of(run)]
    columns = [name for name in COLUMNS if any(name in methods_of(entry) for _, entry in entries)]
    rows = []
    for run, entry in entries:
        scores = [score(methods_of(entry).get(name), interval=name == "kept") for name in columns]
        rows.append([run, entry["endpoint"], entry["metric"], *scores])
    print(table(["run", "endpoint", "metric", *columns], rows))
    for run, entry in entries:
        groups = entry["kept"].get("by_group") or {}
        if groups:
            print(f"\n{run}, {entry['endpoint']}:\n")
            print(table(["group", *columns], (_group(entry, name, columns) for name in groups)))
        for name, found in entry["kept"]["differences"].items():
            low, high = found["ci95"]
            value, p_value = found["value"], found["p_value"]
            print(f"kept less {name}: {value:+.3f} [{low:+.3f}, {high:+.3f}], p = {p_value:.3f}")


def _group(entry: Mapping[str, Any], name: str, columns: Iterable[str]) -> list[str]:
    kept, ours = entry["kept"]["by_group"][name], entry["by_group"][name]
    values = {"kept": kept["mean"], "ours": ours["mean"], **ours["baselines"]}
    return [name, *("–" if values.get(column) is None else _short(values[column]) for column in columns)]


if __name__ == "__main__":
    main()
