"""Maps of the scans of some records: made, put to the test, written over the scans, and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from finetune.explain.attribution import SMALLEST_SPREAD, Explainer
from finetune.explain.images.explainers import EXPLAINERS, called
from finetune.explain.images.guards import ScanGuard, changed_by_weights, gains_of_orders, judge
from finetune.explain.images.overlays import affines_of, write_overlay
from finetune.explain.images.parametric_maps import write_parametric_maps
from finetune.explain.images.scan import Scan
from finetune.explain.images.show import Shown, section
from finetune.explain.methods import Score
from finetune.explain.networks import ExplainedNetwork, network_methods
from finetune.explain.parts import name_of
from finetune.kept_predictor import KeptPredictor
from foundation.cohort.source_series import SourceSeries
from foundation.cohort.store import PreparedCohort
from foundation.files.whole import replacing
from foundation.progress import Progress, Silent
from foundation.report.page import Page

FOLDER = "scans"
"""Of overlays and the table, under the explanation."""

TESTED = 12
"""Records that maps are put to the test on: those that are shown, and others where these are fewer."""

DEFAULT = "integrated_gradients"
"""Of every tower: it needs nothing of how a tower is built, is in the score's unit, and adds up.

Of 45 simulated patients' slices (vit2d) its maps rank cells as occlusion does with a correlation of 0.79, those of
attention with 0.13; `benchmarks/study_explanations_of_scans.py` measures it.
"""

Section = Callable[[Page], None]


@dataclass(frozen=True)
class ImagesExplained:
    """What was found in scans.

    Attributes:
        guards: What the maps stood.
        sections: Of the page, each a function of it.
        table: One row per record, modality and score.
        shown: The scans of records that are shown one by one, with their maps.
        sentences: What became of parametric maps, where they were asked for.
    """

    guards: list[ScanGuard] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    shown: list[Shown] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def explain_images(
    kept: KeptPredictor,
    cohort: PreparedCohort,
    rows: np.ndarray,
    out: Path,
    *,
    progress: Progress | None = None,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    others: np.ndarray | None = None,
    explainer: str = DEFAULT,
    sources: SourceSeries | None = None,
) -> ImagesExplained:
    """Map what the networks of a stack read in the scans of some records.

    Args:
        kept: The stack.
        cohort: A prepared cohort.
        rows: Of the cohort, to be shown one by one.
        out: Folder of the explanation; overlays and a table go to `FOLDER` there.
        progress: Told of scans.
        seed: Of random orders.
        labels: [N] what records are called; by default they are numbered.
        others: Of the cohort; those are put to the test too where few are shown.
        explainer: Of `EXPLAINERS`.
        sources: Of the scans: maps of those that were DICOM are written as parametric maps too.

    Raises:
        DataError: A scan is damaged.
    """
    labels = labels if labels is not None else [f"patient {n + 1}" for n in range(len(rows))]
    read = readers_of(kept, cohort)
    if not read:
        return ImagesExplained(sections=[_nothing(bool(kept.networks))])
    of_stack = Explainer.of(kept, cohort)
    shown: list[Shown] = []
    guards: list[ScanGuard] = []
    tables: list[pd.DataFrame] = []
    sentences: list[str] = []
    with replacing(out / FOLDER) as folder:
        for name, readers in read.items():
            present_N = cohort.present_NM[:, cohort.modalities.index(name)]
            here = np.flatnonzero(present_N[rows])
            if not len(here):
                continue
            more = np.zeros(0, dtype=np.int64) if others is None else others[present_N[others]]
            tested = np.concatenate([rows[here], more[: max(0, TESTED - len(here))]])
            found, of_name = _of_modality(readers, name, cohort, tested, of_stack, explainer, progress, seed)
            guards += of_name
            for one, n in zip(found, here.tolist(), strict=False):
                one.label = labels[n]
                tables.append(_write(one, folder, explainer))
                shown.append(one)
            if sources is not None:
                written = write_parametric_maps(found[: len(here)], rows[here], sources, folder, explainer)
                sentences.append(f"{name}: {written}")
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        table.to_csv(folder / "scans.tsv", sep="\t", index=False, float_format="%.6g")
    return ImagesExplained(
        guards, [section(shown, guards, explainer, kept.weights, sentences)], table, shown, sentences
    )


def readers_of(kept: KeptPredictor, cohort: PreparedCohort) -> dict[str, dict[str, ExplainedNetwork]]:
    """Image modality to the networks of a stack that read it; only those that any reads."""
    networks = network_methods(kept, cohort)
    read = {name: _readers(networks, name) for name in cohort.modalities if name in kept.modalities}
    return {name: readers for name, readers in read.items() if readers}


def _readers(networks: dict[str, ExplainedNetwork], name: str) -> dict[str, ExplainedNetwork]:
    """Networks with a tower for an image modality."""
    return {
        key: network
        for key, network in networks.items()
        if any(spec.kind == "image" and name in spec.modalities for spec in network.adapted.model.specs)
    }


def _nothing(networks: bool) -> Section:
    reason = "no network of the stack reads scans" if networks else "no network is kept"

    def add(page: Page) -> None:
        page.section("Where in the scans")
        page.text(f"There are no maps of scans: {reason}.")

    return add


def _of_modality(
    readers: dict[str, ExplainedNetwork],
    name: str,
    cohort: PreparedCohort,
    rows: np.ndarray,
    of_stack: Explainer,
    explainer: str,
    progress: Progress | None,
    seed: int,
) -> tuple[list[Shown], list[ScanGuard]]:
    """Maps of the scans of one modality, and what they stood."""
    progress = progress or Silent()
    progress.start(f"mapping what is read in {name}", len(rows), "scans")
    random = torch.Generator().manual_seed(seed)
    scans, maps, gains = [], [], []
    for row in rows.tolist():
        scan = Scan(readers, name, row)
        found = EXPLAINERS[explainer](scan) * scan.tissue_G
        if len(gains) < TESTED:
            gains.append(gains_of_orders(scan, found, random))
        scans.append(scan)
        maps.append(found)
        progress.advance()
    progress.finish()
    correlation_NS = changed_by_weights(scans[:TESTED], maps[:TESTED], EXPLAINERS[explainer])
    score_NS = torch.cat([of_stack.read(part).scores() for part in of_stack.split(rows)]).numpy()
    used = [
        s for s, score in enumerate(scans[0].scores) if any(score.task in r.weighted.weights for r in readers.values())
    ]
    spread_S = np.maximum(score_NS.std(axis=0), SMALLEST_SPREAD)[used]
    scores = [scans[0].scores[s] for s in used]
    guards = judge(name, scores, correlation_NS[:, used], np.array(gains)[:, used], spread_S)
    affine_N44 = affines_of(cohort, name, rows)
    entry = cohort.image(name)
    shown = [
        Shown(
            modality=name,
            voxels_CXYZ=np.asarray(cohort.voxels(name, scan.row), dtype=np.float32),
            channels=[
                c for c, here in zip(entry.channels, cohort.channels_NC(name, [scan.row])[0], strict=True) if here
            ],
            acquired_C=cohort.channels_NC(name, [scan.row])[0],
            affine=affine if np.isfinite(affine).all() else None,
            spacing=[float(size) for size in entry.spacing or [1.0] * len(entry.shape)],
            cells=scan.cells,
            maps={scores[n]: found[s].numpy() for n, s in enumerate(used)},
            likeliest=_likeliest(scores, score_S[used]),
            moved=dict(zip(scores, scan.moved()[used].tolist(), strict=True)),
        )
        for scan, found, affine, score_S in zip(scans, maps, affine_N44, score_NS, strict=True)
    ]
    return shown, guards


def _likeliest(scores: Sequence[Score], score_S: np.ndarray) -> list[Score]:
    """The likeliest class of each task, or its only score."""
    best: dict[str, int] = {}
    for s, score in enumerate(scores):
        if score.task not in best or score_S[s] > score_S[best[score.task]]:
            best[score.task] = s
    return [scores[s] for s in best.values()]


def _write(one: Shown, folder: Path, explainer: str) -> pd.DataFrame:
    """Overlays of one scan, and its rows of the table."""
    rows = []
    place = one.place(folder)
    place.mkdir(parents=True)
    for score, map_G in one.maps.items():
        smooth_XYZ = one.smooth(score)
        at = one.peak(score)
        world = one.affine @ [*at, 1] if one.affine is not None else np.full(4, np.nan)
        size = max(float(np.abs(map_G).sum()), 1e-12)
        rows.append(
            {
                "patient": one.label,
                "modality": one.modality,
                "task": score.task,
                "score": score.name,
                "explainer": explainer,
                "moved_by_scan": one.moved[score],
                "sum_of_map": float(map_G.sum()),
                "largest": float(map_G.ravel()[np.abs(map_G).argmax()]),
                "share_that_raises": float(map_G.clip(min=0).sum()) / size,
                **dict(zip(("x_mm", "y_mm", "z_mm"), world[:3].tolist(), strict=True)),
            }
        )
        if one.affine is not None and score in one.likeliest:
            write_overlay(place / f"{name_of(score)}.nii.gz", smooth_XYZ, one.affine, f"{score}, {called(explainer)}")
    return pd.DataFrame(rows)
