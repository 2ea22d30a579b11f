"""The section of explanation.html that shows maps over scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from finetune.config import FROM_SCRATCH, FROZEN_PROBE, OURS
from finetune.explain.images.cells import Cells
from finetune.explain.images.explainers import called
from finetune.explain.images.figures import panels, peak
from finetune.explain.images.guards import ScanGuard
from finetune.explain.images.planes import Plane, planes_of
from finetune.explain.images.viewer import SCRIPT, viewer
from finetune.explain.methods import Score
from foundation.report.page import Page
from foundation.wording import listed, percent

NOT_TRUSTED = "not to be trusted"


@dataclass
class Shown:
    """A scan with its maps.

    Attributes:
        modality: Of the scan.
        voxels_CXYZ: As it was prepared.
        channels: Names of those that were acquired.
        acquired_C: Bool, which they are.
        affine: [4, 4] of its voxels into the world; None where not known.
        spacing: Millimetres per voxel along each axis.
        cells: Of the maps.
        maps: Score to [*grid].
        likeliest: Of each task the class that is predicted, or its score.
        moved: Score to how much the whole scan moves it.
        label: What the record is called.
    """

    modality: str
    voxels_CXYZ: np.ndarray
    channels: list[str]
    acquired_C: np.ndarray
    affine: np.ndarray | None
    spacing: list[float]
    cells: Cells
    maps: dict[Score, np.ndarray] = field(default_factory=dict)
    likeliest: list[Score] = field(default_factory=list)
    moved: dict[Score, float] = field(default_factory=dict)
    label: str = ""

    def place(self, folder: Path) -> Path:
        """Where its files are."""
        return folder / "".join(c if c.isalnum() else "-" for c in self.label) / self.modality

    def smooth(self, score: Score) -> np.ndarray:
        """[*shape] a map on the voxels of the scan."""
        return self.cells.smooth(torch.from_numpy(self.maps[score])).numpy()

    def peak(self, score: Score) -> list[int]:
        """The voxel in the middle of the cell where a map is farthest from 0."""
        cell = peak(self.maps[score])
        middle = [int(center[i].round()) for center, i in zip(self.cells.center, cell, strict=True)]
        return [min(at, size - 1) for at, size in zip(middle, self.cells.shape, strict=True)]

    def volumes(self) -> dict[str, np.ndarray]:
        """Channel to [X, Y, Z]; a 2D image is one slice."""
        return {
            name: volume(self.voxels_CXYZ[c])
            for name, c in zip(self.channels, np.flatnonzero(self.acquired_C), strict=True)
        }

    def planes(self) -> list[Plane]:
        """In which it is shown."""
        shape = self.voxels_CXYZ.shape[1:]
        return planes_of((*shape, 1)[:3], self.affine)


def section(
    shown: Sequence[Shown],
    guards: Sequence[ScanGuard],
    explainer: str,
    weights: Mapping[str, Mapping[str, float]],
    sentences: Sequence[str] = (),
) -> Callable[[Page], None]:
    """A function of the page that adds the section."""

    def add(page: Page) -> None:
        page.section("Where in the scans")
        page.text(_share(weights))
        page.text(
            f"Maps are by {called(explainer)}, on the grid of what the tower's tokens see: {_meaning(explainer)}. "
            "Orange raises the score, blue lowers it. Scroll over a plane, or move its slider with the arrow keys; a "
            "click moves the other planes."
        )
        for sentence in sentences:
            page.text(sentence)
        for number, one in enumerate(shown, 1):
            page.subsection(f"{one.label}, {one.modality}")
            page.text(_said(one, guards))
            _viewer(page, (number, len(shown)), one, guards)
            with page.folded("planes through the maximum of each map"):
                page.figures(_panels(one, score, guards) for score in one.likeliest)

    return add


def _meaning(explainer: str) -> str:
    """What the values of a map are."""
    if explainer == "relevance":
        return "how much each cell counts for the score by the attention that it gets, not in the score's unit"
    if explainer.startswith("grad_cam"):
        return "how much the last features of each cell count for the score, not in the score's unit"
    return "what each cell contributes to the score, in its unit, against a scan that shows its mean tissue there"


def _share(weights: Mapping[str, Mapping[str, float]]) -> str:
    """Which part of the stack maps are of."""
    told = []
    for task, of in weights.items():
        networks = sum(weight for name, weight in of.items() if name in (OURS, FROZEN_PROBE, FROM_SCRATCH))
        told.append(f"{task} {percent(networks, sum(of.values()))}")
    return f"Maps are of the networks' share of the kept predictor, weighted as in it: {listed(told)}."


def mark(score: Score, modality: str, guards: Sequence[ScanGuard]) -> str:
    """Behind a map that failed a check: that it did, with its numbers."""
    failed = [g for g in guards if g.score == score and g.modality == modality and not g.passed]
    numbers = listed([f"{g.name.partition(',')[0]} {g.value:.2g}" for g in failed])
    return f" – {NOT_TRUSTED} ({numbers})" if failed else ""


def _said(one: Shown, guards: Sequence[ScanGuard]) -> str:
    told = [f"{score} {one.moved[score]:+.2g}{mark(score, one.modality, guards)}" for score in one.likeliest]
    return f"What the scan shows moves {listed(told)}."


def _viewer(page: Page, number_of: tuple[int, int], one: Shown, guards: Sequence[ScanGuard]) -> None:
    ordered = [*one.likeliest, *(score for score in one.maps if score not in one.likeliest)]
    maps = {f"{score}{mark(score, one.modality, guards)}": volume(one.maps[score]) for score in ordered}
    centers = [center.numpy() for center in one.cells.center]
    centers += [np.zeros(1)] * (3 - len(centers))
    at = (*one.peak(ordered[0]), 0)[:3]
    spacing = (*one.spacing, 1.0)[:3]
    number, viewers = number_of
    markup = viewer(number, one.label, one.volumes(), maps, centers, one.planes(), spacing, at, viewers)
    page.interactive(markup, SCRIPT)


def _panels(one: Shown, score: Score, guards: Sequence[ScanGuard]):
    channel, scan_XYZ = next(iter(one.volumes().items()))
    return panels(
        scan_XYZ,
        volume(one.smooth(score)),
        one.planes(),
        (*one.spacing, 1.0)[:3],
        unit=f"to {score}, per cell",
        title=f"{score}{mark(score, one.modality, guards)}",
        caption=f"{one.label}, {one.modality} {channel}",
    )


def volume(values: np.ndarray) -> np.ndarray:
    """[X, Y, Z]; a 2D image is one slice."""
    return values if values.ndim == 3 else values[..., None]
