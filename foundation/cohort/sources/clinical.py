"""Clinical covariates as a modality: numbers and categories from a table with one row per patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from foundation.cohort.reading.cells import Column, mark_missing, parse_numbers
from foundation.cohort.reading.damage import no_patient, places
from foundation.cohort.reading.positions import positions_of, runs
from foundation.cohort.reading.repeated_rows import RepeatedRows, one_row_each
from foundation.cohort.reading.tables import Frame, column_names, read_frames
from foundation.cohort.sources.base import Block, Table, TableConfig, TableSource, table_sources
from foundation.cohort.words import (
    Meanings,
    Missing,
    Words,
    add_distinct,
    as_words,
    count_values,
    refuse_two_meanings,
    same,
    without,
)
from foundation.config import Config
from foundation.errors import DataError, nearest


class NamedColumn(Config):
    """Where a covariate is in the table."""

    column: str | list[str] | None = Field(
        None,
        description="Column of the table, or several, of which a patient's first with a value counts; "
        "the covariate's own name by default.",
    )
    missing: Missing = []

    def columns(self, name: str) -> list[str]:
        """Its columns, for a covariate called `name`."""
        return [self.column or name] if isinstance(self.column, str | None) else self.column

    def words(self) -> list[str]:
        """Words of the table that the YAML explains."""
        return []


class NumberCovariate(NamedColumn):
    """A number, such as age: one feature."""

    kind: Literal["number"]


class CategoryCovariate(NamedColumn):
    """One of several words without an order: a feature per category, 1 or 0."""

    kind: Literal["category"]
    categories: Words | None = Field(
        None, min_length=1, description="In order; those found in the table, sorted, by default."
    )

    @model_validator(mode="after")
    def _each_once(self) -> CategoryCovariate:
        if len(set(map(same, self.words()))) < len(self.words()):
            raise ValueError("a category is listed twice")
        refuse_two_meanings({"`categories`": self.words(), "`missing`": self.missing})
        return self

    def words(self) -> list[str]:
        """The categories that are listed."""
        return self.categories or []


class ScaleCovariate(NamedColumn):
    """Words that stand on a scale, such as grades: one feature."""

    kind: Literal["scale"]
    map: dict[str, float | None] = Field(
        min_length=1,
        description="Word to its number, such as {G2: 2, G3: 3}; null is not measured, such as {GX: null}.",
    )

    @field_validator("map", mode="before")
    @classmethod
    def _keys_as_text(cls, scale: object) -> object:
        return dict(zip(as_words(list(scale)), scale.values(), strict=True)) if isinstance(scale, dict) else scale

    @model_validator(mode="after")
    def _each_once(self) -> ScaleCovariate:
        numbers = {same(word): number for word, number in self.map.items()}
        if any(numbers[same(word)] != number for word, number in self.map.items()):
            raise ValueError("a word has two numbers")
        refuse_two_meanings({"`map`": self.words(), "`missing`": self.missing})
        return self

    def words(self) -> list[str]:
        """The words of the scale."""
        return list(self.map)


Covariate = Annotated[NumberCovariate | CategoryCovariate | ScaleCovariate, Field(discriminator="kind")]


class ClinicalConfig(TableConfig):
    """Which column names the patient, and which covariates to read."""

    format: Literal["clinical"]
    patient: str | None = Field(None, description="Column that names the patient; the first by default.")
    columns: dict[str, Covariate] = Field(min_length=1, description="Covariates by name; `age: number` is enough.")
    missing: Missing = []
    repeated: RepeatedRows = "error"

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: object) -> object:
        if not isinstance(columns, dict):
            return columns
        return {name: {"kind": value} if isinstance(value, str) else value for name, value in columns.items()}

    @model_validator(mode="after")
    def _one_meaning(self) -> ClinicalConfig:
        for name, covariate in self.columns.items():
            refuse_two_meanings({f"the column '{name}'": covariate.words(), "`missing`": self.missing})
        return self


@table_sources.register("clinical")
class ClinicalSource(TableSource):
    """A clinical table. What is missing is NaN, in all features of a category."""

    Config = ClinicalConfig
    config: ClinicalConfig

    def list_samples(self) -> list[str]:
        """Patients in the order of the table."""
        patients = self._patients()
        return list(dict.fromkeys(map(str.strip, patients))) if self.config.repeated == "first" else patients

    def _patients(self) -> list[str]:
        """The patient of each row."""
        patients: list[str] = []
        column = self._patient_column
        for frame in read_frames(self.path, [column]):
            missing = mark_missing(without(frame[column], self.config.missing))
            if missing.any():
                raise no_patient(missing, column, self.path)
            patients += frame[column].tolist()
        if not patients:
            raise DataError("holds no patient", where=str(self.path), fix="name a table with rows")
        return patients

    def read(self, samples: Sequence[str]) -> Table:
        """Open the table for these patients."""
        listed = self.list_samples()
        target_of_row = np.full(len(listed), -1)
        target_of_row[positions_of(samples, listed, self.path)] = np.arange(len(samples))
        categories = self._categories()
        names = [feature for name in self.config.columns for feature in self._features(name, categories)]
        kept = self.wanted(names)
        unread = _Unread(self._patients(), self.path)
        return Table([names[place] for place in kept], self._blocks(target_of_row, categories, kept, unread))

    def _blocks(
        self, target_of_row: np.ndarray, categories: dict[str, list[str]], kept: np.ndarray, unread: _Unread
    ) -> Iterator[Block]:
        start = 0
        for frame in self._frames():
            target = target_of_row[start : start + len(frame)]
            start += len(frame)
            chosen = np.flatnonzero(target >= 0)
            frame = frame.iloc[chosen]
            columns = [self._values(name, frame, categories, unread) for name in self.config.columns]
            values = np.concatenate(columns, axis=1, dtype=np.float32)[:, kept]
            for piece, rows in runs(target[chosen]):
                yield Block(rows, slice(0, len(kept)), values[piece])
        unread.refuse()

    @cached_property
    def _patient_column(self) -> str:
        return self.config.patient or column_names(self.path)[0]

    def _frames(self) -> Iterator[Frame]:
        """Pieces of the table; where patients may have several rows, one piece with one row of each."""
        if self.config.repeated == "error":
            yield from read_frames(self.path, self._wanted())
            return
        import pandas as pd

        whole = pd.concat(list(read_frames(self.path, [self._patient_column, *self._wanted()])))
        known = {name: without(whole[name], self.config.missing) for name in whole.columns}
        yield one_row_each(whole.assign(**known), self._patient_column)

    def _wanted(self) -> list[str]:
        return list(
            dict.fromkeys(c for name, covariate in self.config.columns.items() for c in covariate.columns(name))
        )

    def _text(self, name: str, frame: Frame) -> Column:
        """A covariate as words: each patient's first that is not missing."""
        covariate = self.config.columns[name]
        nothing = [*self.config.missing, *covariate.missing]
        first, *others = (without(frame[column].str.strip(), nothing) for column in covariate.columns(name))
        for other in others:
            first = first.mask(mark_missing(first), other)
        return first

    def _features(self, name: str, categories: dict[str, list[str]]) -> list[str]:
        return [f"{name}={category}" for category in categories[name]] if name in categories else [name]

    def _categories(self) -> dict[str, list[str]]:
        """Covariate to its categories, where each is a feature."""
        listed = {
            name: covariate.categories
            for name, covariate in self.config.columns.items()
            if isinstance(covariate, CategoryCovariate)
        }
        found = {name: {} for name, categories in listed.items() if categories is None}
        if found:
            for frame in self._frames():
                for name, words in found.items():
                    add_distinct(words, self._text(name, frame))
        return {name: categories or sorted(found[name].values()) for name, categories in listed.items()}

    def _values(self, name: str, frame: Frame, categories: dict[str, list[str]], unread: _Unread) -> np.ndarray:
        """One covariate of these patients [S, its features], NaN where a cell is missing or cannot be read."""
        covariate = self.config.columns[name]
        text = self._text(name, frame)
        if isinstance(covariate, NumberCovariate):
            return _numbers(text, unread)[:, None]
        words = list(covariate.map) if isinstance(covariate, ScaleCovariate) else categories[name]
        # A listed word counts even where it reads like a sign for missing, such as None for no residual tumour.
        place = Meanings({word: number for number, word in enumerate(words)}).of(text)
        fix = "list it in the YAML, in `missing` where it says that nothing is known, or mend it ({hint})"
        unread.add(np.isnan(place) & ~mark_missing(text), text, f"is no category of '{name}'", fix, words)
        known = ~np.isnan(place)
        if isinstance(covariate, ScaleCovariate):
            scale = np.array([np.nan if number is None else number for number in covariate.map.values()], np.float32)
            values = np.full((len(text), 1), np.nan, dtype=np.float32)
            values[known, 0] = scale[place[known].astype(np.int64)]
            return values
        one_hot = (place[:, None] == np.arange(len(words))).astype(np.float32)
        one_hot[~known] = np.nan
        return one_hot


def _numbers(text: Column, unread: _Unread) -> np.ndarray:
    import pyarrow as pa

    numbers, bad = parse_numbers(pa.array(text, pa.string()), np.float32)
    fix = "mend it, list in `missing` what says that nothing is known, or declare the covariate `category`"
    unread.add(bad, text, "is not a finite number", fix)
    return numbers


class _Unread:
    """Cells that cannot be read, gathered from the whole table before they are refused.

    Args:
        patients: Of the table's rows.
        path: The table.
    """

    def __init__(self, patients: Sequence[str], path: Path) -> None:
        self.patients, self.path = patients, path
        self.found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self.fixes: dict[tuple[str, str], tuple[str, Sequence[str]]] = {}

    def add(self, wrong: np.ndarray | Column, text: Column, what: str, fix: str, words: Sequence[str] = ()) -> None:
        """Note the cells of a column that are wrong, what is wrong and what to do, ``{hint}`` by the known words."""
        cells = text[np.asarray(wrong)]
        if len(cells):
            self.found.setdefault((str(text.name), what), []).extend(zip(cells.index, cells, strict=True))
            self.fixes[str(text.name), what] = (fix, words)

    def refuse(self) -> None:
        """Refuse all that was noted.

        Raises:
            DataError: There is any.
        """
        if not self.found:
            return
        problems, fixes = [], []
        for (column, what), cells in self.found.items():
            rows, values = [row for row, _ in cells], [value for _, value in cells]
            who = [f"{self.patients[row - 1]} ({at})" for row, at in zip(rows, places(self.path, rows), strict=True)]
            problems.append(f"column '{column}': {count_values(values, who)} {what}")
            fix, words = self.fixes[column, what]
            fixes.append(fix.format(hint=nearest(values[0], words)))
        raise DataError("; ".join(problems), where=str(self.path), fix="; ".join(dict.fromkeys(fixes)))
