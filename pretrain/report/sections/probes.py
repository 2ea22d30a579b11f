"""The section on probes: the score of each view for each endpoint and the site, by group, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from foundation.metrics.names import plain_name
from foundation.model.view import FUSED
from foundation.report.page import GAP, Cell, Page, Picture
from foundation.wording import counted, listed
from pretrain.report.figures.probes import probe_plot

SITE = "site (hospital)"


def add_probes(page: Page, metrics: Mapping[str, Any]) -> None:
    """Add the probes of endpoints, with the site's beside those of classes."""
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
    rows = [row for name, views in ordered.items() for row in _probe_rows(name, views, oracle)]
    best = ["best possible"] if oracle else []
    columns = ["value", "95 % interval", "before training", "chance", *best, "training", "held-out"]
    page.table(["endpoint", "view", "metric", *columns], rows, "Training and held-out: patients")
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


def _probe_rows(name: str, views: Mapping[str, Any], oracle: Mapping[str, Mapping[str, Any]]) -> Iterable[list[Any]]:
    for view, result in views.items():
        if "value" not in result:
            continue
        for metric, score in {result["metric"]: result, **result.get("also", {})}.items():
            if "value" not in score:
                continue
            low, high = score["ci95"]
            best = oracle.get(name, {}).get(metric, {}).get("oracle")
            yield [
                name,
                view,
                plain_name(metric),
                Cell(f"{score['value']:.3f}"),
                Cell("–" if low is None else f"{low:.2f} to {high:.2f}"),
                GAP if score.get("before_training") is None else Cell(f"{score['before_training']:.3f}"),
                Cell(f"{score['chance']:.2f}"),
                *([GAP if best is None else Cell(f"{best:.3f}")] if oracle else []),
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
