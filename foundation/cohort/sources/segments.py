"""Copy-number segments into chromosome arms and bins: the mean of the segments, weighted by their overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from foundation.cohort.reading.cells import Column, mark_missing, parse_numbers
from foundation.cohort.reading.genome import ACROCENTRIC, ASSEMBLIES, CHROMOSOMES, Genome, chromosome
from foundation.cohort.reading.positions import SampleRows
from foundation.cohort.reading.tables import Frame, read_frames
from foundation.cohort.sources.base import BLOCK_VALUES, Block, Table, TableConfig, TableSource, table_sources
from foundation.errors import DataError

BEYOND_THE_END = 100_000
"""Base pairs a segment may reach beyond its chromosome: callers that work in windows round the last one up."""


class SegmentsConfig(TableConfig):
    """Which columns to read, in which assembly, and what the features are."""

    format: Literal["segments"]
    genome: Genome = Field(description="The assembly that the positions refer to.")
    resolution: Literal["arms", "bins", "both"] = "arms"
    bin_megabases: float = Field(10, gt=0, description="Length of a bin.")
    sample_column: str = "Sample"
    chromosome_column: str = "Chromosome"
    start_column: str = "Start"
    end_column: str = "End"
    value_column: str = "Segment_Mean"


class Tiling(NamedTuple):
    """Intervals end to end over all chromosomes, on one line of positions.

    Attributes:
        names: Of the intervals that are features.
        kept: Their positions among all intervals.
        borders: Where each interval starts, and where the last ends.
        offsets: Where each of `CHROMOSOMES` starts.
    """

    names: list[str]
    kept: np.ndarray
    borders: np.ndarray
    offsets: np.ndarray


class Segments(NamedTuple):
    """Segments of one piece of the file: row, number of the chromosome, positions from 0, and value."""

    row: np.ndarray
    chromosome: np.ndarray
    start: np.ndarray
    end: np.ndarray
    value: np.ndarray


@table_sources.register("segments")
class SegmentsSource(TableSource):
    """A file of segments; positions count from 1 and a segment ends with its last base.

    The file is read once for as many samples as fit in a block, some tens of thousands.
    """

    Config = SegmentsConfig
    config: SegmentsConfig
    long = True

    def frames(self, columns: Sequence[str]) -> Iterator[Frame]:
        """Pieces of the table; of several files where a source joins them."""
        return read_frames(self.path, columns)

    def list_samples(self) -> list[str]:
        """Barcodes in order of first appearance."""
        barcodes: dict[str, None] = {}
        for frame in self.frames([self.config.sample_column]):
            missing = mark_missing(frame[self.config.sample_column])
            if missing.any():
                raise DataError(f"row {missing.idxmax()} has no sample", where=str(self.path), fix="mend that row")
            barcodes.update(dict.fromkeys(frame[self.config.sample_column].unique()))
        if not barcodes:
            raise DataError("holds no segment", where=str(self.path), fix="name a file with rows")
        return list(barcodes)

    def read(self, samples: Sequence[str]) -> Table:
        """Open the file for these samples."""
        config = self.config
        tilings = []
        if config.resolution in ("arms", "both"):
            tilings.append(arms(config.genome))
        if config.resolution in ("bins", "both"):
            tilings.append(bins(config.genome, config.bin_megabases))
        names = [name for tiling in tilings for name in tiling.names]
        kept = self.wanted(names)
        return Table([names[place] for place in kept], self._blocks(tilings, kept, samples))

    def _blocks(self, tilings: list[Tiling], kept: np.ndarray, samples: Sequence[str]) -> Iterator[Block]:
        intervals = sum(len(tiling.borders) - 1 for tiling in tilings)
        step = max(1, BLOCK_VALUES // intervals)
        for start in range(0, len(samples), step):
            group = samples[start : start + step]
            means = [_Mean(tiling, len(group)) for tiling in tilings]
            for segments in self._segments(group):
                for mean in means:
                    mean.add(segments)
            values = np.concatenate([mean.values() for mean in means], axis=1)[:, kept]
            yield Block(slice(start, start + len(group)), slice(0, len(kept)), values)

    def _segments(self, samples: Sequence[str]) -> Iterator[Segments]:
        config = self.config
        rows = SampleRows(samples, self.same)
        columns = [
            config.sample_column,
            config.chromosome_column,
            config.start_column,
            config.end_column,
            config.value_column,
        ]
        for frame in self.frames(columns):
            row = rows.of(frame[config.sample_column])
            place = self._chromosomes(frame[config.chromosome_column])
            # Only what will be used is checked: a contig outside the assembly has no length to check against.
            wanted = (row >= 0) & (place >= 0)
            frame, row, place = frame[wanted], row[wanted], place[wanted]
            start, end = (self._numbers(frame[name]) for name in (config.start_column, config.end_column))
            value = self._numbers(frame[config.value_column])
            self._check_positions(frame, place, start, end)
            measured = ~np.isnan(value)
            segments = Segments(
                row[measured], place[measured], np.maximum(start[measured] - 1, 0), end[measured], value[measured]
            )
            twice = _overlapping(segments)
            if twice:
                self.remarks["segments that mostly lie in another of the same sample, of which the mean is used"] += (
                    twice
                )
            yield segments

    def _chromosomes(self, column: Column) -> np.ndarray:
        """Position in `CHROMOSOMES`, or -1 for what has no features."""
        place = {}
        for name in column.unique():
            meant = chromosome(name)
            if meant is None:
                raise DataError(
                    f"row {(column == name).idxmax()}: there is no chromosome '{name}'",
                    where=str(self.path),
                    fix="use 1 to 22, X, Y, 23, 24, with or without chr",
                )
            place[name] = CHROMOSOMES.index(meant) if meant else -1
        return column.map(place).to_numpy(np.int64)

    def _numbers(self, column: Column) -> np.ndarray:
        import pyarrow as pa

        numbers, bad = parse_numbers(pa.array(column, pa.string()))
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(
                f"row {column.index[first]}, column '{column.name}': '{column.iloc[first]}' is not a finite number",
                where=str(self.path),
                fix="mend that row",
            )
        return numbers

    def _check_positions(self, frame: Frame, place: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
        length = np.array([ASSEMBLIES[self.config.genome][name].length for name in CHROMOSOMES])
        reversed_ = ~((start >= 0) & (end >= start))
        beyond = end > length[place] + BEYOND_THE_END
        for wrong, what in ((reversed_, "does not run from a start to an end"), (beyond, "ends beyond its chromosome")):
            if wrong.any():
                first = int(np.argmax(wrong))
                name = CHROMOSOMES[place[first]]
                raise DataError(
                    f"row {frame.index[first]}: the segment {start[first]:.0f} to {end[first]:.0f} {what}, "
                    f"chromosome {name} of {length[place[first]]} bases in {self.config.genome}",
                    where=str(self.path),
                    fix="mend that row, or correct `genome`",
                )


def _overlapping(segments: Segments) -> int:
    """How many segments share more than half of the shorter one with the one before; callers may share a border."""
    order = np.lexsort((segments.start, segments.chromosome, segments.row))
    row, place, start, end = (column[order] for column in segments[:4])
    shared = np.minimum(end[1:], end[:-1]) - start[1:]
    shorter = np.minimum(end[1:] - start[1:], end[:-1] - start[:-1])
    return int(((row[1:] == row[:-1]) & (place[1:] == place[:-1]) & (2 * shared > shorter)).sum())


class _Mean:
    """The mean over each interval of a tiling, weighted by overlap, taken as the segments come."""

    def __init__(self, tiling: Tiling, samples: int) -> None:
        self.tiling = tiling
        self.shape = (samples, len(tiling.borders) - 1)
        self.weighted = np.zeros(self.shape[0] * self.shape[1])
        self.weight = np.zeros_like(self.weighted)

    def add(self, segments: Segments) -> None:
        borders = self.tiling.borders
        offset, after = self.tiling.offsets[segments.chromosome], self.tiling.offsets[segments.chromosome + 1]
        start, end = segments.start + offset, np.minimum(segments.end + offset, after)
        first = np.searchsorted(borders, start, side="right") - 1
        last = np.searchsorted(borders, end, side="left") - 1
        pieces = np.maximum(last - first + 1, 0)
        source = np.repeat(np.arange(len(start)), pieces)
        interval = first[source] + np.arange(len(source)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        overlap = np.minimum(end[source], borders[interval + 1]) - np.maximum(start[source], borders[interval])
        cell = segments.row[source] * self.shape[1] + interval
        self.weight += np.bincount(cell, overlap, minlength=len(self.weight))
        self.weighted += np.bincount(cell, overlap * segments.value[source], minlength=len(self.weight))

    def values(self) -> np.ndarray:
        """The means of the intervals that are features [S, F], NaN where no segment lies."""
        mean = np.full(len(self.weight), np.nan, dtype=np.float32)
        np.divide(self.weighted, self.weight, out=mean, where=self.weight > 0, casting="same_kind")
        return mean.reshape(self.shape)[:, self.tiling.kept]


def arms(genome: Genome) -> Tiling:
    """Short and long arms, such as ``1p``; short arms that no assay measures are no features."""
    assembly = ASSEMBLIES[genome]
    cut = {name: [0.0, assembly[name].centromere] for name in CHROMOSOMES}
    names = {name: ["" if name in ACROCENTRIC else f"{name}p", f"{name}q"] for name in CHROMOSOMES}
    return _tile(genome, cut, names)


def bins(genome: Genome, megabases: float) -> Tiling:
    """Bins of one length, such as ``chr1:0-10Mb``; the last of a chromosome is what remains."""
    cut: dict[str, list[float]] = {}
    names: dict[str, list[str]] = {}
    for name in CHROMOSOMES:
        count = int(np.ceil(ASSEMBLIES[genome][name].length / (megabases * 1e6)))
        cut[name] = [number * megabases * 1e6 for number in range(count)]
        names[name] = [f"chr{name}:{n * megabases:g}-{(n + 1) * megabases:g}Mb" for n in range(count)]
    return _tile(genome, cut, names)


def _tile(genome: Genome, cut: dict[str, list[float]], names: dict[str, list[str]]) -> Tiling:
    """Lay the intervals of all chromosomes end to end; one without a name is no feature."""
    lengths = [ASSEMBLIES[genome][name].length for name in CHROMOSOMES]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.float64)
    starts = [offset + position for offset, name in zip(offsets, CHROMOSOMES, strict=False) for position in cut[name]]
    listed = [feature for name in CHROMOSOMES for feature in names[name]]
    kept = [place for place, feature in enumerate(listed) if feature]
    return Tiling([listed[k] for k in kept], np.array(kept), np.array([*starts, offsets[-1]]), offsets)
