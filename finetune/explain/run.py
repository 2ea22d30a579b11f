"""`chiasma explain`: what a run keeps, explained on a cohort; resumed where it stopped, ended with sentences."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from finetune.config import KEPT
from finetune.explain.attribution import Attributed, Explainer
from finetune.explain.genes import CohortGenes, over_cohort
from finetune.explain.guards import Guards, completeness, run_guards, sample
from finetune.explain.images import explain_images, readers_of
from finetune.explain.images.interactions import interactions
from finetune.explain.images.parametric_maps import refuse_without_highdicom
from finetune.explain.images.run import DEFAULT
from finetune.explain.parts import FOLDER, name_of, read_parts, write_parts
from finetune.explain.pathways import enrichment, known_sets, refuse_strangers
from finetune.explain.radiogenomics import radiogenomics
from finetune.explain.report.page import FILE, SWARMED, Card, Explained, Swarm, headlines, write_page
from finetune.explain.shapley import MOST_MODALITIES, modality_shares
from finetune.kept_predictor import DOCUMENT, KeptPredictor
from finetune.resuming import read_json
from foundation.cohort.gene_sets import read_gene_sets
from foundation.cohort.source_series import SourceSeries
from foundation.cohort.store import PreparedCohort
from foundation.errors import ConfigError, DataError, nearest, writing
from foundation.files.hashing import sha256_of
from foundation.files.identity import hashes_of, refuse_another
from foundation.files.lock import WORKING, claimed_run, refuse_foreign
from foundation.files.whole import write_json
from foundation.progress import Progress
from foundation.wording import counted

IDENTITY = f"{WORKING}/explanation.json"
CARDS = 12
SWARM_RECORDS = 300
SPREAD_RECORDS = 256


def explain(
    run: Path,
    cohort: Path,
    out: Path,
    *,
    patients: str | int = CARDS,
    gene_sets: Path | None = None,
    explainer: str = DEFAULT,
    sources: Path | None = None,
    identifiers: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> list[str]:
    """Explain what a run keeps on all records of a cohort that it can read.

    Args:
        run: Folder of a fine-tuning run.
        cohort: Folder of a prepared cohort.
        out: To write to; what is there of the same explanation is not computed again.
        patients: Whom to show one by one: how many, or names separated by commas.
        gene_sets: GMT file; by default the sets that the predictor's tokenizers know.
        explainer: Of scans, one of `EXPLAINERS`.
        sources: YAML that the cohort was prepared from: maps of scans that were DICOM are then written as DICOM
            parametric maps too, which carry the patient's identity, and need `identifiers`.
        identifiers: Whether patients are named; else they are numbered.
        seed: Of bootstraps, random orders and folds.
        progress: Told of records.
        device: Where networks go; by default the GPU where there is one.

    Returns:
        Sentences that say what was found.

    Raises:
        ConfigError, DataError: What was named does not fit.
        CheckpointError: The run is damaged, or the folder holds another explanation.
    """
    if sources is not None:
        _refuse_hidden(identifiers)
        refuse_without_highdicom()
    refuse_foreign(out, IDENTITY)
    opened = PreparedCohort(cohort)
    opened.verify(progress)
    series = SourceSeries(sources, opened) if sources is not None else None
    kept = KeptPredictor.read(run, device)
    opened = kept.finding(opened)
    sentences = _sentences(kept, opened)
    of_omics = Explainer.of(kept, opened)
    rows, shown = _rows(kept, opened, patients)
    labels = _labels(opened, rows, identifiers)
    sets = read_gene_sets(gene_sets) if gene_sets else known_sets([n.adapted.model for n in kept.networks.values()])
    if gene_sets and len(of_omics.columns):
        refuse_strangers(sets, of_omics.columns.names, str(gene_sets))
    if not sets and len(of_omics.columns):
        sentences.append("No gene sets are known, so pathways are not told: name a GMT file with --gene-sets.")
    with claimed_run(out, doing="is being explained in"), writing(out):
        _begin(
            out,
            {
                "run": sha256_of(run / KEPT / DOCUMENT),
                "cohort": opened.hash,
                "seed": seed,
                "--identifiers": identifiers,
                "--explainer": explainer,
                "order of patients": rows.tolist(),
            },
        )
        spread_S = of_omics.spread(sample(rows, SPREAD_RECORDS), progress)
        write_parts(of_omics, rows, labels, spread_S, out / FOLDER, progress)
        guards, genes = Guards([]), CohortGenes([], [])
        if len(of_omics.columns):
            guards = _guards(of_omics, rows, spread_S, out, seed, progress)
            genes = over_cohort(read_parts(of_omics, out / FOLDER), of_omics.columns, len(of_omics.scores), seed)
        pathways = [enrichment(table, sets, seed) for table in genes.genes] if sets else []
        shares = modality_shares(of_omics, kept.modalities, rows, labels, progress)
        told = radiogenomics(kept, run, of_omics.columns, rows, sets, seed=seed, progress=progress)
        images = explain_images(
            kept,
            opened,
            rows[:shown],
            out,
            progress=progress,
            seed=seed,
            labels=labels[:shown],
            others=rows[shown:],
            explainer=explainer,
            sources=series,
        )
        cards = _cards(kept, of_omics, rows[:shown], labels[:shown], out)
        leading = [card.leading(of_omics.scores) for card in cards]
        pairs = None
        if any(entry.kind == "image" for name, entry in opened.manifest.modalities.items() if name in kept.modalities):
            readers, columns = readers_of(kept, opened), of_omics.columns
            pairs = interactions(readers, opened, columns, rows[:shown], labels, leading, seed=seed, progress=progress)
        explained = Explained(
            cohort=opened.manifest.name,
            tasks=kept.tasks,
            weights=kept.weights,
            columns=of_omics.columns,
            records=len(rows),
            scores=of_omics.scores,
            spread_S=spread_S,
            guards=guards,
            genes=genes,
            swarms=_swarms(of_omics, genes, out) if genes.features else [],
            pathways=pathways,
            modalities=shares,
            radiogenomics=told,
            cards=cards,
            sentences=sentences,
            images=images,
            pairs=pairs,
        )
        _write_tables(explained, out)
        write_page(explained, out / FILE)
    return [*sentences, *images.sentences, *headlines(explained)]


def _refuse_hidden(identifiers: bool) -> None:
    if not identifiers:
        raise ConfigError(
            "DICOM parametric maps carry the identity of the patient, as all of a study does",
            where="--sources",
            fix="add --identifiers if patients may be named, or leave --sources out for maps in NIfTI alone",
        )


def _sentences(kept: KeptPredictor, cohort: PreparedCohort) -> list[str]:
    """What the cohort and the methods do not share, and whose modalities are too many to be told apart."""
    told = kept.sentences(cohort)
    here = [cohort.modalities.index(name) for name in kept.modalities if name in cohort.modalities]
    if many := int((cohort.present_NM[:, here].sum(axis=1) > MOST_MODALITIES).sum()):
        has = f"{counted(many, 'record has', 'records have')} more than {MOST_MODALITIES} modalities"
        told.append(f"{has}: what each of them contributes is not told.")
    return told


def _rows(kept: KeptPredictor, cohort: PreparedCohort, patients: str | int) -> tuple[np.ndarray, int]:
    """Records that can be read, those to be shown one by one first; and how many these are."""
    here = [cohort.modalities.index(name) for name in kept.modalities if name in cohort.modalities]
    rows = np.flatnonzero(cohort.present_NM[:, here].any(axis=1))
    if not len(rows):
        raise DataError("no record has anything that the predictor may read", where=str(cohort.path))
    if isinstance(patients, int) and patients < 0:
        raise ConfigError(f"{patients} patients cannot be shown", where="--patients", fix="give 0 or more, or names")
    if isinstance(patients, int) or patients.isdecimal():
        return rows, min(int(patients), len(rows))
    names = cohort.patients[rows].astype(str)
    asked = [name.strip() for name in patients.split(",") if name.strip()]
    for name in asked:
        if name not in names:
            raise ConfigError(
                f"no patient who can be read is called '{name}'", where="--patients", fix=nearest(name, names)
            )
    first = np.isin(names, asked)
    return np.concatenate([rows[first], rows[~first]]), int(first.sum())


def _labels(cohort: PreparedCohort, rows: np.ndarray, identifiers: bool) -> list[str]:
    """[N] what records are called: by number in the order of rows, unless they may be named."""
    names, numbers = cohort.patients[rows].astype(str), {}
    for name in names:
        numbers.setdefault(name, f"patient {len(numbers) + 1}")
    called = [name if identifiers else numbers[name] for name in names]
    counts: dict[str, int] = {}
    several = {name for name, count in zip(*np.unique(called, return_counts=True), strict=True) if count > 1}
    labels = []
    for name in called:
        counts[name] = counts.get(name, 0) + 1
        labels.append(f"{name}, record {counts[name]}" if name in several else name)
    return labels


def _begin(out: Path, identity: Mapping[str, Any]) -> None:
    """Note what is explained, or go on with what is there of the same."""
    path, ours = out / IDENTITY, hashes_of(identity)
    if path.is_file() and any((out / FOLDER).glob("part-*")):
        refuse_another(read_json(path), ours, out)
    write_json(path, ours)


def _guards(
    explainer: Explainer, rows: np.ndarray, spread_S: np.ndarray, out: Path, seed: int, progress: Progress | None
) -> Guards:
    chosen = set(sample(rows).tolist())
    errors, tested = [], []
    for of in read_parts(explainer, out / FOLDER):
        errors.append(of.error_BS)
        if len(here := np.flatnonzero([row in chosen for row in of.rows.tolist()])):
            tested.append(_some(of, here))
    found = run_guards(explainer, tested, spread_S, seed=seed, progress=progress)
    return Guards([*completeness(errors, explainer.scores), *found.guards], found.curves)


def _some(of: Attributed, here: np.ndarray) -> Attributed:
    return Attributed(
        of.rows[here], of.attribution_BSP[here], of.score_BS[here], of.baseline_BS[here], of.error_BS[here], of.steps
    )


def _swarms(explainer: Explainer, genes: CohortGenes, out: Path) -> list[Swarm]:
    """Of each score, the most important features in some records."""
    columns = explainer.columns
    place = {key: p for p, key in enumerate(zip(columns.modalities, columns.names, strict=True))}
    top = []
    for table in genes.features:
        leading = table.head(SWARMED)
        top.append([place[key] for key in zip(leading["modality"], leading["feature"], strict=True)])
    found: list[list[np.ndarray]] = [[] for _ in top]
    values: list[list[np.ndarray]] = [[] for _ in top]
    records = 0
    for of in read_parts(explainer, out / FOLDER):
        values_BP = columns.values(of.rows)
        for s, at in enumerate(top):
            found[s].append(of.attribution_BSP[:, s, at])
            values[s].append(values_BP[:, at])
        records += len(of.rows)
        if records >= SWARM_RECORDS:
            break
    return [
        Swarm(np.concatenate(a), np.concatenate(v), [f"{columns.names[p]} ({columns.modalities[p]})" for p in at])
        for a, v, at in zip(found, values, top, strict=True)
    ]


def _cards(kept: KeptPredictor, explainer: Explainer, rows: np.ndarray, labels: Sequence[str], out: Path) -> list[Card]:
    """Of the first records, which the first batches hold."""
    cards: list[Card] = []
    if not len(rows):
        return cards
    predicted = kept.predict(explainer.columns.cohort, rows)
    modalities = predicted["modalities"].to_list()
    numbers = predicted.drop(columns=["patient", "row", "modalities"]).to_dict("records")
    for of in read_parts(explainer, out / FOLDER):
        values_BP = explainer.columns.values(of.rows)
        for b in range(min(len(of.rows), len(rows) - len(cards))):
            n = len(cards)
            said: Mapping[str, float | str] = numbers[n]
            cards.append(Card(labels[n], modalities[n], said, of.score_BS[b], of.attribution_BSP[b], values_BP[b]))
        if len(cards) == len(rows):
            break
    return cards


def _write_tables(explained: Explained, out: Path) -> None:
    # Those of other gene sets must not stay beside them.
    shutil.rmtree(out / "pathways", ignore_errors=True)
    for s, score in enumerate(explained.scores if explained.genes.features else ()):
        _write_table(explained.genes.features[s], out / "genes" / f"{name_of(score)}.features.tsv")
        _write_table(explained.genes.genes[s], out / "genes" / f"{name_of(score)}.genes.tsv")
        if s < len(explained.pathways):
            _write_table(explained.pathways[s], out / "pathways" / f"{name_of(score)}.tsv")
    _write_table(explained.modalities, out / "modalities.tsv")
    _write_table(explained.radiogenomics.features, out / "radiogenomics" / "features.tsv")
    _write_table(explained.radiogenomics.pathways, out / "radiogenomics" / "pathways.tsv")
    if explained.pairs is not None and len(explained.pairs.table):
        _write_table(explained.pairs.table, out / "interactions.tsv")
    guards: Iterable[dict[str, Any]] = ({**asdict(g), "score": str(g.score)} for g in explained.every_guard())
    write_json(out / "guards.json", list(guards))


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    frame.to_csv(partial, sep="\t", index=False, float_format="%.6g")
    partial.replace(path)
