"""One file for each sample and a sheet with a row for each file, as the GDC gives them, read as one table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from foundation.cohort.reading.cells import Column, parse_numbers
from foundation.cohort.reading.features import DuplicateRule, Features, several_versions
from foundation.cohort.reading.tables import Frame, column_names, find_column, read_frames
from foundation.cohort.sources.base import BLOCK_VALUES, Block, Table, TableConfig, TableSource, table_sources
from foundation.cohort.sources.maf import MafConfig, MafSource
from foundation.cohort.sources.segments import SegmentsConfig, SegmentsSource
from foundation.config import Config
from foundation.errors import ConfigError, DataError


class EachValues(Config):
    """Each file has a row for each feature, and one column counts."""

    format: Literal["values"]
    feature: str = Field(description="Column that names the features; a number, from 1, where there is no header.")
    value: str = Field(description="Column of the values; a number, from 1, where there is no header.")
    header: bool = Field(True, description="Whether the first line names the columns.")
    duplicate_features: DuplicateRule = Field(
        "error", description="What a feature that stands several times means: an error, the mean, or the first."
    )


class EachMaf(MafConfig):
    """Each file is a MAF of one sample."""

    files: str = Field("", description="The sheet says which.")


class EachSegments(SegmentsConfig):
    """Each file has the copy-number segments of one sample."""

    files: str = Field("", description="The sheet says which.")


class PerSampleConfig(TableConfig):
    """The sheet, which of its rows count, where each row's file is, and what such a file is."""

    format: Literal["per_sample"]
    where: dict[str, list[str]] = Field(
        {}, description="Column of the sheet to words, or patterns such as '*.FPKM.txt.gz', of which a row has one."
    )
    file: str = Field(description="A row's file, from the sheet's folder, such as '{File ID}/{File Name}'.")
    sample: str = Field(
        description="Column that names the sample; of several between commas the one that a file names."
    )
    each: Annotated[EachValues | EachMaf | EachSegments, Field(discriminator="format")]

    @field_validator("where", mode="before")
    @classmethod
    def _a_single_word_is_a_list(cls, where: object) -> object:
        if not isinstance(where, dict):
            return where
        return {str(k): [str(x) for x in (v if isinstance(v, list) else [v])] for k, v in where.items()}


class SampleFile(NamedTuple):
    """One sample and the file that was measured for it."""

    sample: str
    path: Path


@table_sources.register("per_sample")
class PerSampleSource(TableSource):
    """A sheet whose rows name a file and its sample. Of a sample that has several files, the first by name counts."""

    Config = PerSampleConfig
    config: PerSampleConfig

    @property
    def companions(self) -> list[Path]:
        """The files of all samples, and those beside the sheet that their reading needs."""
        beside = [self.config.each.genes] if isinstance(self.config.each, EachMaf) else []
        return [*(file.path for file in self._files), *(self.path.parent / name for name in beside if name)]

    def list_samples(self) -> list[str]:
        """Samples in the order of the sheet."""
        return [file.sample for file in self._files]

    def read(self, samples: Sequence[str]) -> Table:
        """Open the files of these samples as one table."""
        path_of = {file.sample: file.path for file in self._files}
        files = [SampleFile(sample, path_of[sample]) for sample in samples]
        each = self.config.each
        if isinstance(each, EachValues):
            return _Values(self, each, files).table()
        unwanted = [*self.config.leave_out_features, *each.leave_out_features]
        each = each.model_copy(update={"leave_out_features": unwanted})
        if isinstance(each, EachMaf):
            return self._joined(_JoinedMaf(each, self.path, files), samples)
        return self._joined(_JoinedSegments(each, self.path, files), samples)

    def _joined(self, source: TableSource, samples: Sequence[str]) -> Table:
        # What is remarked while the blocks are read belongs to the sheet too.
        source.remarks = self.remarks
        return source.read(samples)

    @cached_property
    def _files(self) -> list[SampleFile]:
        rows = self._rows()
        absent = 0
        found: dict[str, list[Path]] = {}
        for row in rows:
            path = self._path(row)
            if path.is_file():
                found.setdefault(self._sample(row, path), []).append(path)
            else:
                absent += 1
        if not found:
            raise DataError(
                f"none of the {len(rows)} files that its rows name is there, first '{self._path(rows[0])}'"
                if rows
                else f"has no row where {self.config.where}",
                where=str(self.path),
                fix="correct `file` or `where`, or download the files",
            )
        if absent:
            self.remarks["files that the sheet names and that are not there"] = absent
        more = sum(len(paths) - 1 for paths in found.values())
        if more:
            self.remarks["further files of a sample that has one already, left out"] = more
        return [SampleFile(sample, min(paths)) for sample, paths in found.items()]

    def _rows(self) -> list[dict[str, str]]:
        """The rows of the sheet that count."""
        columns = [*re.findall(r"\{([^{}]+)\}", self.config.file), self.config.sample, *self.config.where]
        if "{" not in self.config.file:
            raise ConfigError(
                "names no column of the sheet", where=f"file: {self.config.file}", fix="put {COLUMN} into it"
            )
        rows: list[dict[str, str]] = []
        for frame in read_frames(self.path, list(dict.fromkeys(columns))):
            for name, words in self.config.where.items():
                fits = {cell: any(cell == word or fnmatchcase(cell, word) for word in words) for cell in frame[name]}
                frame = frame[frame[name].map(fits).astype(bool)]
            rows += frame.to_dict("records")
        return rows

    def _path(self, row: dict[str, str]) -> Path:
        return self.path.parent / re.sub(r"\{([^{}]+)\}", lambda match: row[match[1]].strip(), self.config.file)

    def _sample(self, row: dict[str, str], path: Path) -> str:
        """The sample of a file: of several, that with which a barcode in the file begins, else the first by name."""
        names = sorted({name.strip() for name in row[self.config.sample].split(",")} - {""})
        if not names:
            raise DataError(f"the row of '{path.name}' names no sample", where=str(self.path), fix="mend that row")
        each = self.config.each
        if len(names) > 1 and isinstance(each, EachMaf | EachSegments):
            for frame in read_frames(path, [each.sample_column]):
                barcode = frame[each.sample_column].iloc[0] if len(frame) else ""
                names = [name for name in names if barcode.startswith(name)] or names
                break
        return names[0]


class _Joined(TableSource):
    """Files of single samples as one table, each under the name that the sheet gives its sample."""

    def __init__(self, config: EachMaf | EachSegments, path: Path, files: Sequence[SampleFile]) -> None:
        super().__init__(config, path)
        self._of_samples = files
        self._sample_column = config.sample_column

    def frames(self, columns: Sequence[str]) -> Iterator[Frame]:
        """The rows of every file, one file after the other."""
        sheet = self.path
        for file in self._of_samples:
            # What is wrong in a row is told with the file that it stands in.
            self.path = file.path
            for frame in read_frames(file.path, columns):
                yield frame.assign(**{self._sample_column: file.sample})
        self.path = sheet


class _JoinedMaf(_Joined, MafSource):
    """Variants."""


class _JoinedSegments(_Joined, SegmentsSource):
    """Segments."""


class _Values:
    """Files of one column of values each."""

    def __init__(self, source: PerSampleSource, each: EachValues, files: Sequence[SampleFile]) -> None:
        self.source, self.each, self.files = source, each, files

    def table(self) -> Table:
        """Samples by the union of the files' features, in order of first appearance."""
        found: dict[str, None] = {}
        last: list[str] = []
        for file in self.files:
            labels = self._features(file.path)[0].names
            if labels != last:
                found.update(dict.fromkeys(labels))
                last = labels
        versions = several_versions(found)
        if versions:
            said = "features in several Ensembl versions, made one under the id without a version"
            self.source.remarks[said] = len(set(versions.values()))
        names = list(dict.fromkeys(versions.get(name, name) for name in found))
        return Table(names, self._blocks(names, versions))

    def _blocks(self, names: list[str], versions: dict[str, str]) -> Iterator[Block]:
        step = max(1, BLOCK_VALUES // len(names))
        place = {name: position for position, name in enumerate(names)}
        for start in range(0, len(self.files), step):
            group = self.files[start : start + step]
            values = np.full((len(group), len(names)), np.nan, dtype=np.float32)
            for row, file in enumerate(group):
                features, cells = self._features(file.path)
                columns = [place[versions.get(name, name)] for name in features.names]
                numbers = self._numbers(cells.iloc[features.kept], file.path)
                values[row, columns] = features.merge(numbers[None])[0]
            yield Block(slice(start, start + len(group)), slice(0, len(names)), values)

    def _features(self, path: Path) -> tuple[Features, Column]:
        """The features of a file, and the cells of all its rows."""
        import pandas as pd

        feature, value = self._columns(path)
        frames = list(read_frames(path, [feature, value], numbered=not self.each.header))
        table = pd.concat(frames) if frames else pd.DataFrame({feature: [], value: []}, dtype=str)
        remarks: Counter[str] = Counter()
        features = Features(
            table[feature].str.strip().tolist(),
            self.each.duplicate_features,
            path,
            remarks,
            leave_out=self.source.config.leave_out_features,
        )
        for what, number in remarks.items():
            self.source.remarks[f"{what} (per file)"] = max(self.source.remarks[f"{what} (per file)"], number)
        return features, table[value]

    def _columns(self, path: Path) -> tuple[str, str]:
        """Names of the two columns in a file."""
        places = self.each.feature, self.each.value
        names = column_names(path, places, as_it_stands=not self.each.header)
        if self.each.header:
            for name in places:
                find_column(name, names, path)
        elif not all(text.isdigit() and 1 <= int(text) <= len(names) for text in places):
            raise ConfigError(
                f"columns {' and '.join(places)} of a file without a header",
                where=str(path),
                fix=f"give their numbers, 1 to {len(names)}",
            )
        return places

    def _numbers(self, cells: Column, path: Path) -> np.ndarray:
        import pyarrow as pa

        numbers, bad = parse_numbers(pa.array(cells, pa.string()), np.float32)
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(
                f"row {cells.index[first]}, column '{self.each.value}': '{cells.iloc[first]}' is not a finite number",
                where=str(path),
                fix="mend that row, or name another column",
            )
        return numbers
