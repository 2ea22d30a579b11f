"""The page of a fine-tuning report: its sections in their order, key numbers, and where the run comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.report.answer import Entry, headlines, tasks_of
from finetune.report.sections.calibration import calibration
from finetune.report.sections.few_labels import few_labels
from finetune.report.sections.folds import splits, values_of_folds
from finetune.report.sections.groups import groups
from finetune.report.sections.modalities import modalities
from finetune.report.sections.result import result
from foundation.report.page import Page, Picture
from foundation.report.run import config_and_versions, read_metrics
from foundation.wording import duration, percent

FILE = "report.html"

PRETRAINED = {
    "none": "none: the network starts from random weights",
    "weights": "none by chiasma: towers begin with weights of others, named in the settings below",
    "per_fold": "one for each fold, pretrained without its test patients",
    "path": "a model folder, named in the settings below",
}
"""What is said in place of the path of a model."""


def write_report(run: Path, pictures: Mapping[str, Sequence[Picture]]) -> None:
    """Write ``report.html`` into a run folder, from its metrics; no patient is named on the page.

    Args:
        run: Holds metrics.json, and config.yaml if there is one.
        pictures: Endpoint of a task to what the task drew.

    Raises:
        DataError: metrics.json is missing or damaged.
        OSError: The disk is full or read-only; nothing half written is left.
    """
    metrics = read_metrics(run)
    page = Page(f"Fine-tuning on {metrics.get('cohort', 'a cohort')}", "\n".join(headlines(metrics)))
    _key_numbers(page, metrics)
    for entry in tasks_of(metrics):
        _task(page, entry, pictures.get(entry["endpoint"], ()))
    splits(page, metrics)
    _provenance(page, run, metrics)
    page.write(run / FILE)


def _key_numbers(page: Page, metrics: Entry) -> None:
    counts = metrics.get("splits") or {}
    facts = [("patients", f"{counts['patients']:,}")] if counts.get("patients") is not None else []
    if counts.get("tested") not in (None, counts.get("patients")):
        facts.append(("of them tested", f"{counts['tested']:,}"))
    facts += [("folds", f"{len(metrics['folds']):,}")] if metrics.get("folds") else []
    facts += [
        (f"events of {entry['endpoint']} ({percent(entry['events'], entry['n'])})", f"{entry['events']:,}")
        for entry in tasks_of(metrics)
        if entry.get("events") is not None
    ]
    for annotation, regions in (metrics.get("found") or {}).items():
        facts += [
            (f"{annotation}, {r}: how well it is found (Dice)", f"{told['dice']:.2f}") for r, told in regions.items()
        ]
    if metrics.get("seconds") is not None:
        facts.append(("time", duration(metrics["seconds"])))
    if facts:
        page.facts(facts)


def _task(page: Page, entry: Entry, pictures: Sequence[Picture]) -> None:
    name, kind = entry["endpoint"], entry.get("task", "")
    page.section(f"{name} ({kind})" if kind not in ("", name) else name)
    result(page, entry, pictures)
    calibration(page, entry)
    modalities(page, entry)
    groups(page, entry)
    few_labels(page, entry)
    values_of_folds(page, entry)


def _provenance(page: Page, run: Path, metrics: Entry) -> None:
    page.section("Where this comes from")
    rows = [["pretrained model", _pretrained(metrics.get("pretrain") or {})]]
    rows += [[name, str(metrics[name])] for name in ("cohort", "seed") if metrics.get(name) is not None]
    if (metrics.get("splits") or {}).get("hash"):
        rows.append(["hash of the folds", metrics["splits"]["hash"]])
    page.table(["what", "which"], rows)
    if metrics.get("adaptation"):
        with page.folded("what was trained of the model"):
            page.listing(metrics["adaptation"])
    config_and_versions(page, run, metrics)


def _pretrained(pretrain: Entry) -> str:
    source = str(pretrain.get("from") or "not recorded")
    text = PRETRAINED.get(source, source)
    seen = pretrain.get("tested_though_seen")
    return text if seen is None else f"{text}; {seen:,} of the tested patients seen in pretraining"
