"""The page of a pretraining report: retrieval, probes, a map of the embeddings, and the curves of training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundation.errors import DataError
from foundation.metrics.names import plain_name
from foundation.model.view import FUSED
from foundation.report.page import GAP, Cell, Page, Picture
from foundation.report.run import config_and_versions, read_json, read_metrics
from foundation.wording import counted, duration, listed, p_number, p_text, percent
from pretrain.report.plots import Series, curves, map_plot, probe_plot

FILE = "report.html"
MOST_PANELS = 15
MOST_PATTERNS = 30
SIGNIFICANT = 0.05

QUANTITIES = {
    "learning_rate": "learning rate",
    "lr": "learning rate",
    "gradient_norm": "norm of the gradient",
    "samples_per_second": "samples per second",
    "waiting": "share of time waiting for data",
}
"""What is logged beside losses, in the order in which it is drawn."""

BOOKKEEPING = {"step", "epoch", "samples_seen", "split", "seconds", "rows"}


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
    _key_numbers(page, metrics, rows)
    _retrieval(page, metrics)
    _probes(page, metrics)
    _map(page, read_json(run / "embedding_map.json"))
    _curves(page, rows)
    _patterns(page, metrics.get("patterns_seen", {}))
    _provenance(page, run, metrics)
    page.write(run / FILE)


def headline(retrieval: Mapping[str, Mapping[str, Any]]) -> str:
    """What retrieval found, in a sentence or two; where it is not better than chance, that comes first."""
    measured = {name: result for name, result in retrieval.items() if "recall@10" in result}
    if not measured:
        return "Retrieval could not be measured: too few held-out patients have two views to match."
    failed = [name for name, result in measured.items() if not _beats_chance(result)]
    name, result = next(iter(measured.items()))
    query, answer = name.split("->")
    found = (
        f"among the first 10 of {result['n']:,} in {percent(result['recall@10'], 1)} of cases "
        f"(chance {percent(result['chance@10'], 1)}, {p_text(result['p_value'])})"
    )
    if name in failed:
        first = f"Not better than chance: from {query} alone, the right patient's {answer} is {found}."
    else:
        first = f"From {query} alone, the right patient's {answer} is {found}."
    others = [other for other in failed if other != name]
    if not others:
        return first
    words = f"{listed([_direction(other) for other in others])} {'is' if len(others) == 1 else 'are'}"
    second = f"{words} not better than chance."
    return f"{second} {first}" if name not in failed else f"{first} {second}"


def _beats_chance(result: Mapping[str, Any]) -> bool:
    return result["p_value"] < SIGNIFICANT and result["recall@10"] > result["chance@10"]


def _direction(name: str) -> str:
    return name.replace("->", " → ")


def _key_numbers(page: Page, metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    facts = []
    train = [row for row in rows if row.get("split") == "train"]
    parameters = metrics.get("parameters")
    if parameters is not None:
        total = sum(parameters.values()) if isinstance(parameters, Mapping) else parameters
        facts.append(("parameters", _large(total)))
    if train:
        facts.append(("steps", f"{train[-1]['step']:,}"))
        facts.append(("samples seen", f"{train[-1].get('samples_seen', 0):,}"))
    if metrics.get("seconds") is not None:
        facts.append(("time", duration(metrics["seconds"])))
    # The first steps warm the machine up; a median leaves them and single pauses out.
    for key, name, form in (
        ("samples_per_second", "samples per second", "{:,.0f}"),
        ("waiting", "time waiting for data", "{:.1%}"),
    ):
        values = [row[key] for row in train if row.get(key) is not None]
        if values:
            facts.append((name, form.format(float(np.median(values)))))
    bad = sum(row.get("split") == "non-finite" for row in rows)
    if bad:
        facts.append(("steps skipped (loss or gradient not finite)", f"{bad:,}"))
    if facts:
        page.facts(facts)


def _large(number: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def _retrieval(page: Page, metrics: Mapping[str, Any]) -> None:
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
            _direction(name),
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


def _probes(page: Page, metrics: Mapping[str, Any]) -> None:
    """Probes of endpoints, with the site's beside those of classes."""
    probes = dict(metrics.get("probes", {}))
    site = metrics.get("site_probe", {})
    if not probes and not site:
        return
    page.section(
        "Linear probes",
        "For each view, a linear model is fitted on the embeddings of training patients and scored on held-out "
        "patients; its penalty is chosen on inner folds of the training patients. Intervals are 95\u00a0% by bootstrap "
        "over held-out patients. Survival is compared within groups only. \u201cBefore training\u201d is the same "
        "model with its initial weights, which are close to principal components: what training adds is the "
        "difference.",
    )
    for loss in losses(probes):
        page.text(loss)
    if site:
        page.text(
            "The site probe predicts the hospital from the embedding. A score above chance may come from the scanner, "
            "from the laboratory, or from hospitals seeing different patients. Where the hospital is predicted as "
            "well as the disease, evaluate on a split by site."
        )
    oracle = metrics.get("oracle") or {}
    ordered = _with_site(probes, site)
    page.figures(
        figure for name, views in ordered.items() if (figure := _probe_figure(name, views, oracle.get(name, {})))
    )
    rows = [row for name, views in ordered.items() for row in _probe_rows(name, views, oracle.get(name, {}))]
    columns = ["value", "95 % interval", "before training", "chance", "best possible", "training", "held-out"]
    header = ["endpoint", "view", "metric", *columns]
    page.table(header, rows, "Training and held-out: patients")
    _skipped(page, ordered)
    for name, views in ordered.items():
        _groups(page, name, views)


def losses(probes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on what training did not improve, and on what one view alone predicts better than all together."""
    fused = {name: views[FUSED] for name, views in probes.items() if "value" in views.get(FUSED, {})}
    idle = [
        f"{name} ({before:.2f} before, {result['value']:.2f} after)"
        for name, result in fused.items()
        if (before := result.get("before_training")) is not None and before >= result["value"]
    ]
    alone = []
    for name, result in fused.items():
        others = {view: other["value"] for view, other in probes[name].items() if "value" in other}
        best = max(others, key=lambda view: others[view])
        if others[best] > result["value"]:
            alone.append(f"{name} ({best} {others[best]:.2f}, fused {result['value']:.2f})")
    said = []
    if idle:
        said.append(f"The fused view predicts no better than before training: {listed(idle)}.")
    if alone:
        said.append(
            f"One view alone predicts better than the fused one: {listed(alone)}. A view that some patients lack is "
            "scored on fewer patients."
        )
    return said


def _with_site(probes: dict[str, Any], site: Mapping[str, Any]) -> dict[str, Any]:
    """Endpoints in their order, the site right after the first that is a matter of classes."""
    ordered: dict[str, Any] = {}
    for name, views in probes.items():
        ordered[name] = views
        if site and SITE not in ordered and any(v.get("metric") == "balanced_accuracy" for v in views.values()):
            ordered[SITE] = site
    if site:
        ordered.setdefault(SITE, site)
    return ordered


SITE = "site (hospital)"


def _probe_figure(name: str, views: Mapping[str, Any], oracle: Mapping[str, Any]) -> Picture | None:
    measured = [view for view in views.values() if "value" in view]
    if not measured:
        return None
    metric: str = measured[0]["metric"]
    sizes = sorted({view["n_test"] for view in measured})
    caption = f"{sizes[0]} to {sizes[-1]} held-out patients." if len(sizes) > 1 else f"{sizes[0]} held-out patients."
    if "sites" in measured[0]:
        caption += f" {measured[0]['sites']} sites have enough patients to be scored."
    best = oracle.get(metric, {}).get("oracle")
    return probe_plot(views, title=name, metric=plain_name(metric), oracle=best, caption=caption)


def _probe_rows(name: str, views: Mapping[str, Any], oracle: Mapping[str, Any]) -> Iterable[list[Any]]:
    for view, result in views.items():
        if "value" not in result:
            continue
        for metric, score in {result["metric"]: result, **result.get("also", {})}.items():
            if "value" not in score:
                continue
            low, high = score["ci95"]
            best = oracle.get(metric, {}).get("oracle")
            yield [
                name,
                view,
                plain_name(metric),
                Cell(f"{score['value']:.3f}"),
                Cell("–" if low is None else f"{low:.2f} to {high:.2f}"),
                GAP if score.get("before_training") is None else Cell(f"{score['before_training']:.3f}"),
                Cell(f"{score['chance']:.2f}"),
                Cell("–" if best is None else f"{best:.3f}"),
                result["n_train"],
                result["n_test"],
            ]


def _skipped(page: Page, probes: Mapping[str, Any]) -> None:
    rows = [
        [name, view, result["skipped"]]
        for name, views in probes.items()
        for view, result in views.items()
        if "skipped" in result
    ]
    if rows:
        page.table(["endpoint", "view", "why"], rows, "Not measured")
    for name, views in probes.items():
        left_out = max((len(result.get("left_out", {})) for result in views.values()), default=0)
        if left_out:
            page.text(f"{name}: {counted(left_out, 'class has', 'classes have')} too few patients and is left out.")


def _groups(page: Page, name: str, views: Mapping[str, Any]) -> None:
    """A table of one endpoint's scores by group, a column per view."""
    having = {view: result["by_group"] for view, result in views.items() if "by_group" in result}
    groups = sorted({group for of_view in having.values() for group in of_view})
    if not groups:
        return
    metric = next(result["metric"] for result in views.values() if "by_group" in result)
    rows = [[group, *(_group_cell(of_view.get(group, {})) for of_view in having.values())] for group in groups]
    page.table(["group", *having], rows, f"{name} by group: {plain_name(metric)} (95 % interval), held-out patients")


def _group_cell(score: Mapping[str, Any]) -> Cell:
    if "value" not in score:
        return GAP
    low, high = score["ci95"]
    interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return Cell(f"{score['value']:.2f}{interval}, n = {score['n_test']}")


def _map(page: Page, drawn: Mapping[str, Any] | None) -> None:
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


def _curves(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    series = gather_series(rows)
    if not series:
        return
    page.section("The course of training")
    caption = "Training is averaged over neighbouring steps." if len(rows) > 200 else ""
    left = series[MOST_PANELS:]
    if left:
        names = ", ".join(one.name for one in left)
        caption += f" {len(left)} more quantities are in metrics.jsonl: {names}."
    shown = series[:MOST_PANELS]
    page.figures([curves(shown, alt=f"Curves of {listed([one.name for one in shown])}", caption=caption.strip())])


def gather_series(rows: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Every number that was logged, over the steps: losses first, then retrieval, learning rate and speed."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        split = row.get("split")
        if split not in ("train", "held_out"):
            continue
        for key, value in _numbers(row):
            points.setdefault(key, {"train": [], "held_out": []})[split].append((row["step"], value))
    order = list(QUANTITIES)
    # The sort is stable: within losses and within retrieval the order is that of the log.
    ranked = sorted(points, key=lambda key: (2 + order.index(key)) if key in order else int(key.startswith("recall@")))
    return [Series(QUANTITIES.get(key, key), points[key]["train"], points[key]["held_out"]) for key in ranked]


def _numbers(row: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for key, value in row.items():
        if key == "retrieval" and isinstance(value, Mapping):
            for name, result in value.items():
                if "recall@10" in result:
                    yield f"recall@10, {_direction(name)}", result["recall@10"]
        elif key not in BOOKKEEPING and isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)


def _patterns(page: Page, patterns: Mapping[str, int]) -> None:
    if not patterns:
        return
    page.section(
        "What training saw",
        "The modalities of the training samples, after modality dropout; a sample is one record in one step.",
    )
    ordered = sorted(patterns.items(), key=lambda item: (-item[1], item[0]))
    total = sum(patterns.values())
    rows = [[name.replace("+", " + "), count, _share(count, total)] for name, count in ordered[:MOST_PATTERNS]]
    rest = sum(count for _, count in ordered[MOST_PATTERNS:])
    if rest:
        rows.append([f"{len(ordered) - MOST_PATTERNS} other patterns", rest, _share(rest, total)])
    page.table(["pattern", "samples", "of all"], rows)


def _share(count: int, total: int) -> Cell:
    return Cell(percent(count, total), shade=count / max(total, 1))


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
