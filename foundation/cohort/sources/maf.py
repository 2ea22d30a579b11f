"""Mutations in a MAF file: patient by gene, 1 where a variant changes the protein, 0 where none does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from foundation.cohort.barcodes import only_new
from foundation.cohort.reading.cells import Column, mark_missing
from foundation.cohort.reading.damage import reading
from foundation.cohort.reading.feature_names import UNNAMED, dates_among, match_names, remark_on_dates
from foundation.cohort.reading.features import several_versions
from foundation.cohort.reading.positions import SampleRows
from foundation.cohort.reading.tables import Frame, read_comments, read_frames
from foundation.cohort.reading.variant_classes import NON_SILENT, SILENT, VariantClasses
from foundation.cohort.sources.base import BLOCK_VALUES, Block, Table, TableConfig, TableSource, table_sources
from foundation.errors import DataError, nearest

NO_GENE = (*UNNAMED, "Unknown", "unknown", "UNKNOWN", "NONE")
"""What stands for the gene of a variant that lies in none; such a variant is no feature."""

SEQUENCED = re.compile(r"(?:#+\s*sequenced[ _-]?samples?\b|case_list_ids)\s*[:=]?(.*)", re.IGNORECASE)
"""A line that lists who was sequenced, in the comments of a MAF or in a case list of cBioPortal."""

HEADS_SAMPLES = re.compile(r"(?:tumor[ _])?(?:sample|patient|case)s?(?:[ _]?(?:barcode|id|name)s?)?", re.IGNORECASE)
"""What the first line of a list of samples may be called."""

NAMED = 20
"""Unknown variant classes named one by one; of a column that holds something else there would be thousands."""


class MafConfig(TableConfig):
    """Which columns to read, which variants count, and which genes become features."""

    format: Literal["maf"]
    gene_column: str = "Hugo_Symbol"
    class_column: str = "Variant_Classification"
    sample_column: str = "Tumor_Sample_Barcode"
    non_silent: list[str] = Field(
        list(NON_SILENT),
        min_length=1,
        description="Variant classes that count, in the words of MAF, VEP, ANNOVAR or Funcotator.",
    )
    silent: list[str] = Field(
        list(SILENT), description="Variant classes that do not; one in neither list is not counted, and named."
    )
    min_patients: int = Field(
        1, ge=0, description="A gene becomes a feature when hit in at least so many patients; 0 needs `genes`."
    )
    genes: str | None = Field(
        None,
        description="File beside the MAF: genes that the assay covers, first in each line. No other is a feature; with "
        "`min_patients: 0` each is one, 0 of who was sequenced without a hit, as a model wants of new patients.",
    )
    sequenced: str | None = Field(
        None,
        description="File beside the MAF, a barcode first in each line or a case list of cBioPortal: also sequenced, "
        "though no variant of theirs is listed. `#sequenced_samples: …` in the MAF itself is read without this key.",
    )

    @model_validator(mode="after")
    def _genes_without_a_hit_are_listed(self) -> MafConfig:
        if self.min_patients == 0 and self.genes is None:
            raise ValueError("min_patients: 0 keeps genes that nobody has hit: list them in a file, `genes: FILE`")
        return self


@table_sources.register("maf")
class MafSource(TableSource):
    """A MAF file. Who is in it, even with silent variants alone, in its comments, or in `sequenced`, was sequenced.

    What is held in memory is 8 to 16 bytes per variant that counts: it grows with the variants, not with
    samples x genes.
    """

    Config = MafConfig
    config: MafConfig
    long = True

    @property
    def companions(self) -> list[Path]:
        """Files read beside the table itself."""
        return [self.path.parent / name for name in (self.config.sequenced, self.config.genes) if name]

    def frames(self, columns: Sequence[str]) -> Iterator[Frame]:
        """Pieces of the table; of several files where a source joins them."""
        return read_frames(self.path, columns)

    def list_samples(self) -> list[str]:
        """Barcodes in order of first appearance, then those that are only listed as sequenced."""
        barcodes: dict[str, None] = {}
        for frame in self.frames([self.config.sample_column]):
            barcodes.update(dict.fromkeys(self._barcodes(frame).unique()))
        if not barcodes:
            raise DataError("holds no variant", where=str(self.path), fix="name a MAF file with rows")
        inside = only_new(_sequenced(read_comments(self.path), in_comments=True), list(barcodes))
        if inside:
            self.remarks["samples without a variant, listed as sequenced in the comments of the MAF"] = len(inside)
        barcodes |= dict.fromkeys(inside)
        if self.config.sequenced:
            listed = _sequenced(_lines(self.path.parent / self.config.sequenced))
            barcodes |= dict.fromkeys(only_new(listed, list(barcodes)))
        return list(barcodes)

    def read(self, samples: Sequence[str]) -> Table:
        """Open the file for these samples; a gene is hit as often as they are."""
        genes, pairs = self._covered(*self._features(*self._hits(samples)))
        hits_of_gene = np.bincount(pairs % max(1, len(genes)), minlength=len(genes))
        frequent = [place for place in range(len(genes)) if hits_of_gene[place] >= self.config.min_patients]
        if not frequent:
            raise DataError(
                f"no gene is hit in {self.config.min_patients} patients (most: {int(hits_of_gene.max(initial=0))})",
                where=str(self.path),
                fix="lower min_patients",
            )
        kept = sorted(frequent, key=genes.__getitem__)
        column_of_gene = np.full(len(genes), -1)
        column_of_gene[kept] = np.arange(len(kept))
        rows, columns = pairs // len(genes), column_of_gene[pairs % len(genes)]
        return Table(
            [genes[place] for place in kept],
            _blocks(rows[columns >= 0], columns[columns >= 0], len(samples), len(kept)),
        )

    def _hits(self, samples: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Genes hit, and the sorted numbers `sample x genes + gene` of every sample's hits."""
        import pandas as pd

        config = self.config
        rows = SampleRows(samples, self.same)
        genes: dict[str, int] = {}
        classes = VariantClasses(config.non_silent, config.silent)
        found: Counter[str] = Counter()
        without_gene = 0
        sample_pieces, gene_pieces = [], []
        for frame in self.frames([config.sample_column, config.class_column, config.gene_column]):
            position = rows.of(frame[config.sample_column])
            words = frame[config.class_column]
            found.update(words[position >= 0].value_counts().to_dict())
            counts = words.isin([word for word in words.unique() if classes.count(word)]) & (position >= 0)
            nowhere = frame[config.gene_column].str.strip().isin(NO_GENE)
            without_gene += int((counts & nowhere).sum())
            counts &= ~nowhere
            frame, position = frame[counts], position[counts]
            codes, names = pd.factorize(frame[config.gene_column])
            numbers = np.array([genes.setdefault(name, len(genes)) for name in names], dtype=np.int64)
            sample_pieces.append(position.astype(np.int32))
            gene_pieces.append(numbers[codes].astype(np.int32))
        unknown = Counter({word: number for word, number in found.items() if classes.count(word) is None})
        if not genes:
            self._refuse_no_hit(found, unknown)
        self._remark_on(unknown, without_gene)
        hits = np.concatenate(sample_pieces).astype(np.int64)
        return list(genes), np.unique(hits * len(genes) + np.concatenate(gene_pieces))

    def _features(self, genes: list[str], pairs: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The genes that are features, each once, and the hits among them."""
        versions = several_versions(genes)
        if versions:
            number = len(set(versions.values()))
            self.remarks["genes in several Ensembl versions, made one under the id without a version"] = number
        listed = [versions.get(gene, gene) for gene in genes]
        dates = dates_among(genes)
        remark_on_dates(dates, "left out, as two genes may have become one", self.remarks)
        names = [gene for gene in dict.fromkeys(listed) if gene not in dates]
        names = [names[place] for place in self.wanted(names).tolist()]
        if names == genes:
            return genes, pairs
        column = {gene: place for place, gene in enumerate(names)}
        rows, places = np.divmod(pairs, len(genes))
        columns = np.array([column.get(gene, -1) for gene in listed], dtype=np.int64)[places]
        return names, np.unique(rows[columns >= 0] * len(names) + columns[columns >= 0])

    def _covered(self, genes: list[str], pairs: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Without a list of covered genes those that are hit; with one, all that it has, and the hits among them."""
        if self.config.genes is None:
            return genes, pairs
        path = self.path.parent / self.config.genes
        listed = [*dict.fromkeys(re.split(r"[\t,;]", line)[0].strip() for line in _lines(path))]
        listed = [gene for gene in listed if gene and not gene.startswith("#")]
        if not listed:
            raise DataError("lists no gene", where=str(path), fix="write the genes that the assay covers, one a line")
        place = match_names(listed, genes)
        column = np.full(len(genes), -1)
        column[place[place >= 0]] = np.flatnonzero(place >= 0)
        if strangers := int((column < 0).sum()):
            self.remarks["genes with a hit that `genes` does not list, left out"] = strangers
        rows, columns = pairs // len(genes), column[pairs % len(genes)]
        return listed, np.unique(rows[columns >= 0] * len(listed) + columns[columns >= 0])

    def _refuse_no_hit(self, found: Counter[str], unknown: Counter[str]) -> None:
        absent = [name for name in self.config.non_silent if name not in found]
        hint = f" ('{absent[0]}': {nearest(absent[0], found)})" if absent else ""
        strange = f"; in neither list: {_named(unknown)}" if unknown else ""
        raise DataError(
            f"no variant of the chosen samples is of the {len(self.config.non_silent)} classes in non_silent{strange}",
            where=str(self.path),
            fix=f"check non_silent{hint}, and which samples are left out",
        )

    def _remark_on(self, unknown: Counter[str], without_gene: int) -> None:
        for word, number in unknown.most_common(NAMED):
            self.remarks[f"variants not counted: class '{word}' is neither in non_silent nor in silent"] = number
        if len(unknown) > NAMED:
            rest = sum(unknown.values()) - sum(number for _, number in unknown.most_common(NAMED))
            self.remarks[f"variants not counted: {len(unknown) - NAMED} more classes in neither list"] = rest
        if without_gene:
            self.remarks["variants that count but lie in no gene, left out"] = without_gene

    def _barcodes(self, frame: Frame) -> Column:
        barcodes = frame[self.config.sample_column]
        missing = mark_missing(barcodes)
        if missing.any():
            raise DataError(
                f"row {missing.idxmax()} has no '{self.config.sample_column}'",
                where=str(self.path),
                fix="mend that row",
            )
        return barcodes


def _sequenced(lines: Sequence[str], *, in_comments: bool = False) -> list[str]:
    """Barcodes that lines list as sequenced: in a MAF's comments, in a case list, in one line, or first in each."""
    listed = [match[1] for line in lines if (match := SEQUENCED.match(line))]
    plain = [line for line in lines if line.strip() and not line.startswith("#")]
    if listed or in_comments or len(plain) == 1:
        return [barcode for text in listed or plain for barcode in re.split(r"[\s,;\"]+", text) if barcode]
    first = [re.split(r"[\t,;]", line)[0].strip().strip("\"'") for line in plain]
    return first[1:] if first and HEADS_SAMPLES.fullmatch(first[0]) else first


def _lines(path: Path) -> list[str]:
    with reading(path):
        return path.read_text(encoding="utf-8-sig").splitlines()


def _named(unknown: Counter[str]) -> str:
    return ", ".join(f"'{word}' ({number})" for word, number in unknown.most_common(3))


def _blocks(rows: np.ndarray, columns: np.ndarray, samples: int, features: int) -> Iterator[Block]:
    """Zeros with a 1 at every (row, column); `rows` are sorted."""
    step = max(1, BLOCK_VALUES // features)
    for start in range(0, samples, step):
        end = min(samples, start + step)
        first, last = np.searchsorted(rows, [start, end])
        values = np.zeros((end - start, features), dtype=np.float32)
        values[rows[first:last] - start, columns[first:last]] = 1
        yield Block(slice(start, end), slice(0, features), values)
