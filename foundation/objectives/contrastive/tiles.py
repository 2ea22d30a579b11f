"""Tiles of scores: which rows of a batch take part, their scores tile by tile, and gradients from those of tiles.

Scores exist one tile at a time, in the same memory, and are made again when gradients are wanted; the rows of side b
are gathered from all processes, and their gradients sent back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foundation.collectives import gather_rows, gather_sizes, scatter_sums

CHUNK = {"cpu": 512}
"""Rows and columns of a tile of scores: two tiles fit a processor's cache, and its matrix units are busy."""

CHUNK_OF_ACCELERATOR = 4096
"""The same on any other device, where a tile has to outlast the start of a kernel."""


class Layout:
    """Which rows take part, in the order of patients, and where each row's positives begin and end.

    Sorting by patient gathers the positives along a diagonal, so that tiles away from it need not look for any.
    Positions are worked out on the host from the whole batch's presence and patients; the embeddings stay where
    they are.

    Attributes:
        rows: Of this process's a, those present, by patient.
        columns: Of this process's b, those present, as they are sent.
        sizes: How many columns each process sends.
        order: Puts the columns of all processes in the order of patients.
        row_patients, column_patients: Patient of each row and column.
        first, last: Positives of a row are the columns from `first` up to `last`.
        row_positives, column_positives: How many positives a row has, and a column in rows of all processes.
        count_a, count_b: Present rows of each side in the whole batch.
        matched_a, matched_b: Those that have a positive.
    """

    def __init__(self, present_a_B: Tensor, present_b_B: Tensor, patients_B: Tensor, device: torch.device) -> None:
        local = torch.stack([patients_B.to(device), present_a_B.to(device), present_b_B.to(device)], dim=1)
        per_process = gather_sizes(len(local), device)
        everyone = gather_rows(local, per_process).cpu().numpy()
        own = local.cpu().numpy()
        all_a = np.sort(everyone[everyone[:, 1] != 0, 0])
        all_b = everyone[everyone[:, 2] != 0, 0]
        rows, columns = np.flatnonzero(own[:, 1]), np.flatnonzero(own[:, 2])
        rows = rows[np.argsort(own[rows, 0], kind="stable")]
        order = np.argsort(all_b, kind="stable")
        sorted_b, own_a = all_b[order], own[rows, 0]
        ends = np.cumsum(per_process)[:-1]
        self.sizes = [int(np.count_nonzero(part)) for part in np.split(everyone[:, 2], ends)]
        self.first, self.last = _span(own_a, sorted_b)
        column_first, column_last = _span(sorted_b, all_a)
        self.count_a, self.count_b = len(all_a), len(all_b)
        self.matched_a, self.matched_b = int(np.isin(all_a, all_b).sum()), int((column_last > column_first).sum())

        def on_device(positions: np.ndarray) -> Tensor:
            return torch.from_numpy(positions).to(device)

        self.rows, self.columns, self.order = on_device(rows), on_device(columns), on_device(order)
        self.row_patients, self.column_patients = on_device(own_a), on_device(sorted_b)
        self.row_positives = on_device(self.last - self.first)
        self.column_positives = on_device(column_last - column_first)


def _span(wanted: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.searchsorted(within, wanted, side="left"), np.searchsorted(within, wanted, side="right")


class Tile(NamedTuple):
    """Scores of some rows against some columns; `same` marks positives, None where there cannot be any."""

    rows: slice
    columns: slice
    scores: Tensor
    same: Tensor | None


class Scores:
    """Scores of this process's rows against all columns, tile by tile, always in the same memory.

    Attributes:
        rows_PD, columns_QD: Embeddings that take part, by patient.
        scaled_PD: The rows times the scale, which stays on its device.
        spare: Memory of the size of a tile, for whoever works on one.
    """

    def __init__(self, a_BD: Tensor, b_BD: Tensor, scale: Tensor, layout: Layout, chunk: int | None) -> None:
        self.dtype = torch.promote_types(torch.promote_types(a_BD.dtype, b_BD.dtype), torch.float32)
        self.rows_PD = a_BD[layout.rows].to(self.dtype)
        self.columns_QD = gather_rows(b_BD[layout.columns], layout.sizes)[layout.order].to(self.dtype)
        self.scale = scale.detach()
        self.scaled_PD = (self.rows_PD * self.scale).to(self.dtype)
        self.layout = layout
        self.chunk = chunk or CHUNK.get(a_BD.device.type, CHUNK_OF_ACCELERATOR)
        largest = min(self.chunk, len(self.rows_PD)) * min(self.chunk, len(self.columns_QD))
        self._scores, self.spare = self.rows_PD.new_empty((2, largest))

    def tiles(self, *, positives_only: bool = False) -> Iterator[Tile]:
        """Every tile, or those that may hold a positive; each overwrites the one before it."""
        for rows in _slices(len(self.rows_PD), self.chunk):
            first, last = self.layout.first[rows.start], self.layout.last[rows.stop - 1]
            for columns in _slices(len(self.columns_QD), self.chunk):
                near = first < columns.stop and last > columns.start
                if near or not positives_only:
                    yield self._tile(rows, columns, near)

    def _tile(self, rows: slice, columns: slice, near: bool) -> Tile:
        a, b = self.scaled_PD[rows], self.columns_QD[columns]
        scores = self._scores[: len(a) * len(b)].view(len(a), len(b))
        torch.mm(a, b.T, out=scores)
        layout = self.layout
        same = layout.row_patients[rows, None] == layout.column_patients[None, columns] if near else None
        return Tile(rows, columns, scores, same)

    def spare_like(self, scores: Tensor) -> Tensor:
        """The spare memory in the shape of a tile."""
        return self.spare[: scores.numel()].view_as(scores)


def _slices(length: int, chunk: int) -> Iterator[slice]:
    for start in range(0, length, chunk):
        yield slice(start, min(start + chunk, length))


class Gradients:
    """Gradients of a loss with respect to embeddings and scale, from those with respect to tiles of scores."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._rows_PD = torch.zeros_like(scores.rows_PD)
        self._columns_QD = torch.zeros_like(scores.columns_QD)

    def add(self, tile: Tile, of_scores: Tensor) -> None:
        """Count in a tile."""
        self._rows_PD[tile.rows].addmm_(of_scores, self._scores.columns_QD[tile.columns])
        self._columns_QD[tile.columns].addmm_(of_scores.T, self._scores.rows_PD[tile.rows])

    def of_scale(self) -> Tensor:
        """Scalar, this process's share."""
        # A score is scale times a similarity, so the sum of gradient times similarity is that of row times gradient.
        return torch.linalg.vecdot(self._scores.rows_PD, self._rows_PD).sum()

    def of_embeddings(self, a_BD: Tensor, b_BD: Tensor) -> tuple[Tensor, Tensor]:
        """This process's rows of both sides, zero where absent; the memory is given up."""
        layout, scale = self._scores.layout, self._scores.scale
        unsorted = torch.empty_like(self._columns_QD)
        unsorted[layout.order] = self._columns_QD
        columns = scatter_sums(unsorted, layout.sizes)
        results = (a_BD, layout.rows, self._rows_PD), (b_BD, layout.columns, columns)
        del self._rows_PD, self._columns_QD
        a, b = (
            torch.zeros_like(side).index_copy_(0, rows, gradient.mul_(scale).to(side.dtype))
            for side, rows, gradient in results
        )
        return a, b
