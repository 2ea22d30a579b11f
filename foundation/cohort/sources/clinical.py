"""Clinical covariates as a modality: numbers and categories from a table with one row per patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from foundation.cohort.reading.positions import positions_of, runs
from foundation.cohort.reading.tables import Column, Frame, column_names, mark_missing, parse_numbers, read_frames
from foundation.cohort.sources.base import Block, Table, TableConfig, TableSource, table_sources
from foundation.config import Config
from foundation.errors import DataError, nearest


class NamedColumn(Config):
    """Where a covariate is in the table."""

    column: str | list[str] | None = Field(
        None,
        description="Column of the table, or several, of which a patient's first with a value counts; "
        "the covariate's own name by default.",
    )

    def columns(self, name: str) -> list[str]:
        """Its columns, for a covariate called `name`."""
        return [self.column or name] if isinstance(self.column, str | None) else self.column


class NumberCovariate(NamedColumn):
    """A number, such as age: one feature."""

    kind: Literal["number"]


class CategoryCovariate(NamedColumn):
    """One of several words without an order: a feature per category, 1 or 0."""

    kind: Literal["category"]
    categories: list[str] | None = Field(
        None, min_length=1, description="In order; those found in the table, sorted, by default."
    )

    @field_validator("categories", mode="before")
    @classmethod
    def _as_text(cls, categories: object) -> object:
        return [str(name) for name in categories] if isinstance(categories, list) else categories

    @field_validator("categories")
    @classmethod
    def _each_once(cls, categories: list[str] | None) -> list[str] | None:
        if categories is not None and len(set(categories)) < len(categories):
            raise ValueError("a category is listed twice")
        return categories


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
        return {str(name): number for name, number in scale.items()} if isinstance(scale, dict) else scale


Covariate = Annotated[NumberCovariate | CategoryCovariate | ScaleCovariate, Field(discriminator="kind")]


class ClinicalConfig(TableConfig):
    """Which column names the patient, and which covariates to read."""

    format: Literal["clinical"]
    patient: str | None = Field(None, description="Column that names the patient; the first by default.")
    columns: dict[str, Covariate] = Field(min_length=1, description="Covariates by name; `age: number` is enough.")

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: object) -> object:
        if not isinstance(columns, dict):
            return columns
        return {name: {"kind": value} if isinstance(value, str) else value for name, value in columns.items()}


@table_sources.register("clinical")
class ClinicalSource(TableSource):
    """A clinical table. What is missing is NaN, in all features of a category."""

    Config = ClinicalConfig
    config: ClinicalConfig

    def list_samples(self) -> list[str]:
        """Patients in the order of the table."""
        patients: list[str] = []
        column = self.config.patient or column_names(self.path)[0]
        for frame in read_frames(self.path, [column]):
            missing = mark_missing(frame[column])
            if missing.any():
                raise DataError(f"row {missing.idxmax()} has no patient", where=str(self.path), fix="mend that row")
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
        return Table([names[place] for place in kept], self._blocks(target_of_row, categories, kept))

    def _blocks(self, target_of_row: np.ndarray, categories: dict[str, list[str]], kept: np.ndarray) -> Iterator[Block]:
        start = 0
        for frame in read_frames(self.path, self._wanted()):
            target = target_of_row[start : start + len(frame)]
            start += len(frame)
            chosen = np.flatnonzero(target >= 0)
            frame = frame.iloc[chosen]
            columns = [self._values(name, frame, categories) for name in self.config.columns]
            values = np.concatenate(columns, axis=1, dtype=np.float32)[:, kept]
            for piece, rows in runs(target[chosen]):
                yield Block(rows, slice(0, len(kept)), values[piece])

    def _wanted(self) -> list[str]:
        return list(
            dict.fromkeys(c for name, covariate in self.config.columns.items() for c in covariate.columns(name))
        )

    def _text(self, name: str, frame: Frame) -> Column:
        """A covariate as words: each patient's first that is not missing."""
        first, *others = (frame[column].str.strip() for column in self.config.columns[name].columns(name))
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
        found: dict[str, set[str]] = {name: set() for name, categories in listed.items() if categories is None}
        if found:
            for frame in read_frames(self.path, self._wanted()):
                for name, words in found.items():
                    text = self._text(name, frame)
                    words.update(text[~mark_missing(text)])
        return {name: categories or sorted(found[name]) for name, categories in listed.items()}

    def _values(self, name: str, frame: Frame, categories: dict[str, list[str]]) -> np.ndarray:
        """One covariate of these patients [S, its features]."""
        covariate = self.config.columns[name]
        text = self._text(name, frame)
        if isinstance(covariate, NumberCovariate):
            return self._numbers(text)[:, None]
        if isinstance(covariate, ScaleCovariate):
            self._refuse_unlisted(name, text, list(covariate.map))
            return text.map(covariate.map).to_numpy(np.float32)[:, None]
        self._refuse_unlisted(name, text, categories[name])
        one_hot = (text.to_numpy()[:, None] == np.array(categories[name], dtype=object)).astype(np.float32)
        # A listed word counts even where it reads like a sign for missing, such as None for no residual tumour.
        one_hot[one_hot.sum(axis=1) == 0] = np.nan
        return one_hot

    def _refuse_unlisted(self, name: str, text: Column, words: list[str]) -> None:
        unknown = ~mark_missing(text) & ~text.isin(words)
        if unknown.any():
            row = unknown.idxmax()
            raise DataError(
                f"row {row}, column '{text.name}': '{text[row]}' is no category of '{name}'",
                where=str(self.path),
                fix=f"{nearest(text[row], words)} List it in the YAML, or mend the row",
            )

    def _numbers(self, text: Column) -> np.ndarray:
        import pyarrow as pa

        numbers, bad = parse_numbers(pa.array(text, pa.string()), np.float32)
        if bad.any():
            place = int(np.argmax(bad))
            raise DataError(
                f"row {text.index[place]}, column '{text.name}': '{text.iloc[place]}' is not a finite number",
                where=str(self.path),
                fix="mend that row, or declare the covariate `category`",
            )
        return numbers
