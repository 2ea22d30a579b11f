"""How what an omics value does to a score depends on a region of the scan: their interaction, exactly.

Of a value g and a region r it is f(g, r) - f(0, r) - f(g, 0) + f(0, 0): the effect of the value on the score, with the
region as it is, less its effect with the region taken away. All else of the record stays as it is, 0 is the baseline of
a value and the mean tissue of the scan, as everywhere in the explanation. It is the second difference that the
interaction index of pairs averages (Grabisch and Roubens 1999), taken where the patient is; integrated Hessians
(Janizek et al. 2021) distribute the same along a path, and need derivatives that a network with rectifiers lacks.

Where a predictor adds up what values and scans say, as linear models do, it is exactly 0. So only the networks of a
stack are asked. Regions are blocks of cells of the scan, as many as keep the cost of a patient bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from finetune.explain.guards import MOST_CORRELATION, RANDOM_WEIGHTS
from finetune.explain.images.cells import Cells
from finetune.explain.images.guards import ScanGuard, agreement
from finetune.explain.images.overlays import affines_of
from finetune.explain.images.scan import Scan
from finetune.explain.methods import Columns, Score
from finetune.explain.networks import ExplainedNetwork
from foundation.cohort.store import PreparedCohort
from foundation.progress import Progress, Silent

MOST_REGIONS = 64
"""Of a scan."""

TESTED = 6
"""Records whose interactions are computed under random weights too."""

ROUNDING = 2e-6
"""Share of a score below which a difference of scores is that of single precision."""

NOTHING = (
    "no network that is kept reads scans and omics together, and what linear models say of them is a sum: how a "
    "gene's effect depends on a region of the scan is exactly 0."
)


@dataclass(frozen=True)
class Regions:
    """Blocks of the cells of a scan that hold tissue, R of them.

    Attributes:
        number_G: [*grid] int64, the region of each cell; -1 where it has no tissue.
        middle_R3: Voxel in the middle of each region's tissue; of a 2D image the last is 0.
        world_R3: The same in the world (RAS+, millimetres); NaN where it is not known.
        words: [R] where each lies within the tissue.
    """

    number_G: np.ndarray
    middle_R3: np.ndarray
    world_R3: np.ndarray
    words: list[str]

    @classmethod
    def of(cls, scan: Scan, affine: np.ndarray | None) -> Regions:
        """Those of a scan: as many along each axis as `MOST_REGIONS` allows."""
        grid = scan.cells.grid
        most = math.floor(MOST_REGIONS ** (1 / len(grid)) + 1e-9)
        along = [np.arange(size) * min(size, most) // size for size in grid]
        block_G = np.ravel_multi_index(np.meshgrid(*along, indexing="ij"), [min(size, most) for size in grid])
        tissue_G = scan.tissue_G.numpy()
        number_G = np.full(grid, -1)
        number_G[tissue_G] = np.unique(block_G[tissue_G], return_inverse=True)[1]
        tissue_V = np.argwhere(scan.foreground_XYZ.numpy())
        region_V = scan.cells.blocks(torch.from_numpy(number_G)).numpy()[tuple(tissue_V.T)]
        count = int(number_G.max(initial=-1)) + 1
        middle_R3 = np.zeros((count, 3))
        for axis in range(tissue_V.shape[1]):
            middle_R3[:, axis] = np.bincount(region_V, tissue_V[:, axis], count) / np.bincount(
                region_V, minlength=count
            )
        world_R3 = np.full((count, 3), np.nan)
        ends = np.array([tissue_V.min(axis=0), tissue_V.max(axis=0)])
        words = [_steps(middle, ends) for middle in middle_R3]
        if affine is not None:
            world_R3 = middle_R3 @ affine[:3, :3].T + affine[:3, 3]
            corners = [[ends[i, a] if a < ends.shape[1] else 0 for a, i in enumerate(at)] for at in np.ndindex(2, 2, 2)]
            placed = np.array(corners) @ affine[:3, :3].T + affine[:3, 3]
            words = [_directions(world, placed.min(axis=0), placed.max(axis=0)) for world in world_R3]
        return cls(number_G, middle_R3, world_R3, words)

    def __len__(self) -> int:
        """R."""
        return len(self.words)

    def taken(self) -> Tensor:
        """Bool [1 + R, *grid] cells that are kept: all, then all but each region."""
        number_G = torch.from_numpy(self.number_G)
        return torch.stack([number_G != region for region in (-2, *range(len(self)))])


def _directions(at: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Where a place lies among the tissue, in thirds along the patient's axes."""
    third = np.clip((at - low) / np.maximum(high - low, 1e-9) * 3, 0, 2.999).astype(int)
    names = (("left", "", "right"), ("posterior", "", "anterior"), ("inferior", "", "superior"))
    return " ".join(name[t] for name, t in zip(names, third, strict=True) if name[t]) or "centre"


def _steps(middle: np.ndarray, ends: np.ndarray) -> str:
    """The same, where directions are not known: how far along each axis of the image."""
    share = (middle[: ends.shape[1]] - ends[0]) / np.maximum(ends[1] - ends[0], 1)
    return ", ".join(f"{part:.0%} along {axis}" for axis, part in zip("xyz", share, strict=False))


@dataclass(frozen=True)
class Pairs:
    """Interactions of one record's values with regions of one of its scans.

    Attributes:
        modality: Of the scan.
        regions: Of it, R.
        cells: Of the scan.
        places: [J] columns of the values.
        effect_JRS: Effect of each value on each score with a region taken away.
        whole_JS: The same with the scan as it is.
    """

    modality: str
    regions: Regions
    cells: Cells
    places: list[int]
    effect_JRS: np.ndarray
    whole_JS: np.ndarray

    @property
    def pair_JRS(self) -> np.ndarray:
        """Interactions."""
        return self.whole_JS[:, None] - self.effect_JRS


def pairs_of(scan: Scan, columns: Columns, places: Sequence[int], regions: Regions) -> Pairs:
    """Interactions of some omics values of a record with regions of its scan.

    Args:
        scan: Of the record.
        columns: Of the cohort.
        places: [J] columns.
        regions: Of the scan.
    """
    keep_JP = torch.ones(1 + len(places), len(columns), dtype=torch.bool)
    keep_JP[torch.arange(len(places)) + 1, torch.tensor([*places], dtype=torch.int64)] = False
    score_JRS = scan.crossed(regions.taken(), keep_JP, columns).numpy()
    effect_JRS = score_JRS[:1] - score_JRS[1:]
    # A difference of two scores in single precision is 0 to within its rounding; so are differences of these.
    noise_S = ROUNDING * np.abs(score_JRS).max(axis=(0, 1))
    pair_JRS = effect_JRS[:, :1] - effect_JRS[:, 1:]
    pair_JRS[np.abs(pair_JRS) <= noise_S] = 0
    whole_JS = effect_JRS[:, 0]
    return Pairs(scan.name, regions, scan.cells, [*places], whole_JS[:, None] - pair_JRS, whole_JS)


@dataclass(frozen=True)
class Interactions:
    """Of the records that are shown one by one.

    Attributes:
        pairs: What a record is called to its pairs, one for each of its scans that networks read.
        guards: Whether they show what was learned.
        table: One row per record, score, value and region.
        sentence: Where there are none, why; else empty.
    """

    pairs: dict[str, list[Pairs]] = field(default_factory=dict)
    guards: list[ScanGuard] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentence: str = ""


def both(modality: str) -> str:
    """What guards of interactions are told by, where those of maps are told by the modality."""
    return f"{modality} and omics"


def interactions(
    readers: Mapping[str, Mapping[str, ExplainedNetwork]],
    cohort: PreparedCohort,
    columns: Columns,
    rows: np.ndarray,
    labels: Sequence[str],
    leading: Sequence[Mapping[Score, Sequence[int]]],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Interactions:
    """Interactions of the leading values of records with regions of their scans.

    Args:
        readers: Image modality to the networks that read it.
        cohort: Prepared.
        columns: Of the cohort's omics.
        rows: N records.
        labels: [N] what they are called.
        leading: [N] of scores that are shown to the columns of the values that move them most.
        seed: Of random weights.
        progress: Told of scans.
    """
    progress = progress or Silent()
    readers = {name: _with_omics(of) for name, of in readers.items()}
    readers = {name: of for name, of in readers.items() if of}
    if not readers or not len(columns):
        return Interactions(sentence=NOTHING)
    found: dict[str, list[Pairs]] = {}
    guards: list[ScanGuard] = []
    tables: list[pd.DataFrame] = []
    for name, networks in readers.items():
        here = [n for n, row in enumerate(rows.tolist()) if _has(cohort, name, row) and any(leading[n].values())]
        of_modality: list[tuple[Scan, Pairs, Mapping[Score, Sequence[int]]]] = []
        progress.start(f"pairing genes with regions in {name}", len(here), "scans")
        for n in here:
            scan = Scan(networks, name, int(rows[n]))
            regions = Regions.of(scan, _affine(cohort, name, scan.row))
            places = list(dict.fromkeys(place for of in leading[n].values() for place in of))
            pairs = pairs_of(scan, columns, places, regions)
            found.setdefault(labels[n], []).append(pairs)
            tables.append(_table(labels[n], pairs, scan.scores, leading[n], columns))
            of_modality.append((scan, pairs, leading[n]))
            progress.advance()
        progress.finish()
        guards += _guards(of_modality[:TESTED], columns, seed) if of_modality else []
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    sentence = ""
    if len(table) and not np.any(table["interaction"]):
        sentence = (
            "networks that are kept add up what omics values and regions of the scan say: their interaction is exactly "
            "0, to the rounding of single precision."
        )
    return Interactions({} if sentence else found, [] if sentence else guards, table, sentence)


def _with_omics(networks: Mapping[str, ExplainedNetwork]) -> dict[str, ExplainedNetwork]:
    """Those that read omics values too."""
    return {key: network for key, network in networks.items() if network.whole.positions}


def _has(cohort: PreparedCohort, name: str, row: int) -> bool:
    return bool(cohort.present_NM[row, cohort.modalities.index(name)])


def _affine(cohort: PreparedCohort, name: str, row: int) -> np.ndarray | None:
    affine = affines_of(cohort, name, [row])[0]
    return affine if np.isfinite(affine).all() else None


def _guards(
    found: Sequence[tuple[Scan, Pairs, Mapping[Score, Sequence[int]]]], columns: Columns, seed: int
) -> list[ScanGuard]:
    """Whether interactions of each score that is shown change with the weights; of scores that have any."""
    first = found[0][0]
    correlations: dict[Score, list[float]] = {}
    for number in range(RANDOM_WEIGHTS):
        networks = {key: network.randomised(seed + number) for key, network in first.networks.items()}
        for scan, pairs, leading in found:
            other = pairs_of(Scan(networks, scan.name, scan.row), columns, pairs.places, pairs.regions)
            for score, places in leading.items():
                s, at = scan.scores.index(score), [pairs.places.index(place) for place in places]
                one, two = (of.pair_JRS[at, :, s].ravel() for of in (pairs, other))
                # A patient without the modalities of the leading values has none of a score.
                if one.size and np.ptp(one) > 0:
                    # Where pairs under random weights are level, nothing of these is left in them.
                    correlations.setdefault(score, []).append(abs(agreement(one, two)) if np.ptp(two) > 0 else 0.0)
    guards = []
    for score, values in correlations.items():
        value = float(np.mean(values))
        sentence = (
            f"with weights in disorder, pairs of a value and a region rank alike with a correlation of {value:.2f} on "
            f"average, sign aside (at most {MOST_CORRELATION})"
        )
        name = f"random weights, {score} ({both(first.name)})"
        guards.append(ScanGuard(name, value, value <= MOST_CORRELATION, sentence, both(first.name), score))
    return guards


def _table(
    label: str, pairs: Pairs, scores: Sequence[Score], leading: Mapping[Score, Sequence[int]], columns: Columns
) -> pd.DataFrame:
    """All pairs of the scores that are shown, the strongest first."""
    rows = []
    for score, places in leading.items():
        s, pair_JRS = scores.index(score), pairs.pair_JRS
        for j, r in np.ndindex(pair_JRS.shape[:2]):
            if pairs.places[j] in places:
                rows.append(
                    {
                        "patient": label,
                        "modality": pairs.modality,
                        "task": score.task,
                        "score": score.name,
                        "feature": columns.names[pairs.places[j]],
                        "feature_modality": columns.modalities[pairs.places[j]],
                        "region": pairs.regions.words[r],
                        **dict(zip(("x_mm", "y_mm", "z_mm"), pairs.regions.world_R3[r].tolist(), strict=True)),
                        "effect": pairs.whole_JS[j, s],
                        "effect_without_region": pairs.effect_JRS[j, r, s],
                        "interaction": pair_JRS[j, r, s],
                    }
                )
    frame = pd.DataFrame(rows)
    order = frame.assign(size=-frame["interaction"].abs()).sort_values(["task", "score", "size"], kind="stable").index
    return frame.loc[order].reset_index(drop=True)
