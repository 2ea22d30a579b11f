"""On a patient's card: how the effects of omics values depend on regions of the scan, strongest first, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from finetune.explain.images.figures import pair_panels
from finetune.explain.images.guards import ScanGuard
from finetune.explain.images.interactions import Pairs, both
from finetune.explain.images.show import Shown, mark, volume
from finetune.explain.methods import Columns, Score
from foundation.report.page import Cell, Entry, Page, Picture
from foundation.wording import listed

HEADER = ["score", "value", "region", "middle, mm", "its effect", "without the region", "difference"]

SHOWN, DRAWN = 5, 3
"""Pairs in a table, and values in a figure; the rest is in the file."""


def add_pairs(
    page: Page,
    pairs: Pairs,
    scan: Shown,
    leading: Mapping[Score, Sequence[int]],
    scores: Sequence[Score],
    columns: Columns,
    guards: Sequence[ScanGuard],
) -> None:
    """Add the pairs of one record and one of its scans.

    Args:
        page: To add to.
        pairs: Of values and regions.
        scan: That the regions are of.
        leading: Scores that are shown to the columns of the values on the card.
        scores: All of them.
        columns: Of the cohort.
        guards: What interactions stood.
    """
    with page.folded(f"genes and regions of the scan ({scan.modality})"):
        page.text(
            "What a value does to the score with a region of the scan as it is, less what it does with the region "
            "showing its mean tissue. Regions are named in the patient's directions, by the middle of their tissue."
        )
        rows: list[list[Entry]] = []
        figures: list[Picture] = []
        added: list[str] = []
        for score, places in leading.items():
            at = [pairs.places.index(place) for place in places]
            pair_JR = pairs.pair_JRS[at, :, scores.index(score)]
            if not pair_JR.any():
                added.append(str(score))
                continue
            names = [f"{columns.names[place]} ({columns.modalities[place]})" for place in places]
            marked = f"{score}{mark(score, both(scan.modality), guards)}"
            rows += _rows(pairs, pair_JR, at, scores.index(score), names, marked)
            figures.append(_figure(pairs, pair_JR, names, scan, marked))
        if added:
            page.text(f"The kept predictor adds up what values and the scan say of {listed(added)}: all pairs are 0.")
        if rows:
            page.table(HEADER, rows)
            page.figures(figures)


def _rows(
    pairs: Pairs, pair_JR: np.ndarray, at: Sequence[int], s: int, names: Sequence[str], marked: str
) -> list[list[Entry]]:
    """The strongest pairs of one score."""
    rows: list[list[Entry]] = []
    for flat in np.argsort(-np.abs(pair_JR), axis=None, kind="stable")[:SHOWN].tolist():
        j, r = divmod(flat, pair_JR.shape[1])
        world_3 = pairs.regions.world_R3[r].tolist()
        at_mm = ", ".join(f"{mm:.0f}" for mm in world_3).replace("-", "−")
        row: list[Entry] = [
            marked,
            Cell(names[int(j)], number=False),
            Cell(pairs.regions.words[r], number=False),
            Cell("not known" if np.isnan(world_3).any() else at_mm),
            _signed(float(pairs.whole_JS[at[j], s])),
            _signed(float(pairs.effect_JRS[at[j], r, s])),
            _signed(float(pair_JR[j, r])),
        ]
        rows.append(row)
    return rows


def _signed(value: float) -> Cell:
    return Cell(f"{value:+.3g}".replace("-", "−"))


def _figure(pairs: Pairs, pair_JR: np.ndarray, names: Sequence[str], scan: Shown, marked: str) -> Picture:
    """The values of the strongest pairs, each in the slice through the region that it depends on most."""
    plane = scan.planes()[0]
    order = [j for j in np.argsort(-np.abs(pair_JR).max(axis=1), kind="stable")[:DRAWN].tolist() if pair_JR[j].any()]
    number_G = pairs.regions.number_G
    found = []
    for j in order:
        map_G = np.where(number_G >= 0, pair_JR[j][number_G], 0.0)
        map_XYZ = volume(pairs.cells.blocks(torch.from_numpy(map_G)).numpy())
        middle_3 = pairs.regions.middle_R3[np.abs(pair_JR[j]).argmax()]
        found.append((names[j], map_XYZ, int(middle_3[plane.through].round())))
    channel, scan_XYZ = next(iter(scan.volumes().items()))
    return pair_panels(
        scan_XYZ,
        found,
        plane,
        (*scan.spacing, 1.0)[:3],
        unit="more (+) or less (−) with the region",
        title=marked,
        caption=f"{scan.label}, {scan.modality} {channel}: {plane.name} slices, each through the region that the "
        "effect of the value depends on most.",
    )
