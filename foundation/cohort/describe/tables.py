"""Omics tables as modalities: a matrix, variants or segments, told by their heads."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from foundation.cohort.describe.findings import Findings, FoundModality
from foundation.cohort.describe.heads import Head, read_head
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.recognise import Recognised, patient_column, recognise
from foundation.cohort.describe.values import judge
from foundation.cohort.reading.cells import parse_numbers
from foundation.cohort.reading.genome import ASSEMBLIES, chromosome
from foundation.cohort.reading.tables import read_frames
from foundation.cohort.sources.base import table_sources
from foundation.errors import ChiasmaError
from foundation.wording import counted, file_size

ENDINGS = (".tsv", ".txt", ".csv", ".tab", ".maf", ".seg", ".tsv.gz", ".txt.gz", ".csv.gz", ".tab.gz", ".maf.gz",
           ".seg.gz",
           ".parquet")  # fmt: skip

ASSAYS = {
    "mirna": "mirna|mirseq", "rna": "rna|expr|hiseq|fpkm|tpm|counts|rsem|transcript", "protein": "rppa|protein|proteom",
    "mutation": "mut|maf|snv|somatic", "gistic": "gistic|thresholded", "cnv": "cna|cnv|copy|segment",
    "methylation": "meth|beta|hm27|hm450|epic",
    "metabolite": "metabol", "radiomics": "radiomic", "cytokine": "cytokine|olink", "microbe": "microb|otu",
}  # fmt: skip
"""Name of a modality to the words in a file's name that stand for it."""

GENOMES = {
    "hg19": "hg19|grch37|build37|_37",
    "hg38": "hg38|grch38|build38|_38|masked_copy_number|ascat|allelic_specific",
}
"""Assembly to the words that stand for it."""


def assay_of(name: str) -> str:
    """The modality that a file's name speaks of, else its stem as a word."""
    stem = PurePosixPath(name).name.lower()
    found = next((assay for assay, words in ASSAYS.items() if re.search(words, stem)), "")
    return found or re.sub(r"\W+", "_", stem.split(".")[0]).strip("_") or "table"


def genome_of(text: str) -> str | None:
    """The assembly that a text names."""
    return next((genome for genome, words in GENOMES.items() if re.search(words, text.lower())), None)


def place_table(
    findings: Findings, listing: Listing, file: str, *, name: str = "", genome: str = "", notes: list[str] | None = None
) -> str | None:
    """Add a table as the modality that it seems to be, or put it aside with a reason.

    Its name is by default what the file's name speaks of; `genome` is known from elsewhere, `notes` are added.

    Returns:
        The name of the modality; None where the table is none.
    """
    listing.take([file])
    patients = findings.patients.patients if findings.patients else []
    try:
        head = read_head(listing.path(file))
        what = recognise(head, set(patients) | set(findings.pairs))
        made = _MAKERS[what.kind](file, head, what, genome) if what.kind in _MAKERS else None
        if made is None:
            findings.put_aside(file, _why_none(what, head))
            return None
        made.notes += notes or []
        made.samples = made.samples or samples_of(made.recipe["source"], listing)
    except ChiasmaError as error:
        findings.put_aside(file, f"{error.what}. {error.fix}.")
        return None
    made.holds += f", {file_size(listing.sizes[file])}"
    return findings.add(name or assay_of(file), made)


def samples_of(source: dict[str, Any], listing: Listing) -> list[str]:
    """Names of a table's samples, asked of the source itself: what it refuses would stop `prepare` too.

    Raises:
        DataError: The source refuses the table.
    """
    part = table_sources[source["format"]]
    return part(part.Config(**source), listing.path(source["files"])).list_samples()


def _matrix(file: str, head: Head, what: Recognised, genome: str) -> FoundModality:
    source = {"format": "matrix", "files": file, **what.source}
    by_feature = source["orientation"] == "features_by_samples"
    values = [name for name in head.names[1:] if name not in source.get("leave_out_columns", [])]
    recipe, notes = judge(head.numbers(values[:200]))
    labels = [row[0] for row in head.rows if row]
    if by_feature:
        # Gene symbols repeat in nearly every table of a portal.
        source["duplicate_features"] = "mean"
        notes.append("A feature that stands twice becomes its mean; `first` and `error` are the other choices.")
    if not by_feature and all(name.isdigit() for name in values):
        source["numeric_names"] = True
    samples = len(values) if by_feature else 0
    holds = f"features x {counted(samples, 'sample')}" if by_feature else f"samples x {counted(len(values), 'feature')}"
    example = ", ".join((labels if by_feature else values)[:3])
    return FoundModality(
        {"kind": "omics", "source": source, **recipe}, file, f"{holds} (features such as {example})", notes
    )


def _maf(file: str, head: Head, what: Recognised, genome: str) -> FoundModality:
    usual = {
        "sample_column": "Tumor_Sample_Barcode",
        "gene_column": "Hugo_Symbol",
        "class_column": "Variant_Classification",
    }
    columns = {key: column for key, column in what.source.items() if column != usual[key]}
    source = {"format": "maf", "files": file, **columns}
    notes = [
        "Patients by genes: 1 where a variant changes the protein. min_patients drops genes that are hit in fewer.",
        "Who was sequenced and has no variant is known only from a list: name it under `sequenced`.",
    ]
    return FoundModality(
        {"kind": "omics", "source": source | {"min_patients": 2}, "values": "binary"}, file, "variants", notes
    )


def _segments(file: str, head: Head, what: Recognised, genome: str) -> FoundModality:
    usual = {"sample_column": "Sample", "chromosome_column": "Chromosome", "start_column": "Start", "end_column": "End",
             "value_column": "Segment_Mean"}  # fmt: skip
    known = genome or genome_of(file) or _genome_of_ends(head, what.source)
    source = {"format": "segments", "files": file, "genome": known or "hg38", "resolution": "arms"}
    source |= {key: column for key, column in what.source.items() if column != usual[key]}
    notes = ["The mean over each chromosome arm; `resolution: bins` or `both` are finer."]
    if not known:
        notes.insert(0, "DECIDE: the file does not say its assembly; hg38 is a guess, hg19 the other choice.")
    return FoundModality({"kind": "omics", "source": source, "unit": "log2 ratio"}, file, "segments", notes)


def _genome_of_ends(head: Head, columns: dict[str, Any]) -> str | None:
    """The one assembly whose chromosomes are long enough for the ends of all segments; None where both are."""
    furthest: dict[str, float] = {}
    for frame in read_frames(head.path, [columns["chromosome_column"], columns["end_column"]]):
        ends, _ = parse_numbers(pa.array(frame[columns["end_column"]], pa.string()))
        names = frame[columns["chromosome_column"]].to_numpy()
        for name in set(names):
            place = chromosome(name) or ""
            furthest[place] = max(furthest.get(place, 0.0), float(np.nanmax(ends[names == name], initial=0)))
    fits = {
        genome: all(end <= lengths[name].length for name, end in furthest.items() if name in lengths)
        for genome, lengths in ASSEMBLIES.items()
    }
    alone = [genome for genome, fit in fits.items() if fit]
    return alone[0] if len(alone) == 1 else None


_MAKERS = {"matrix": _matrix, "maf": _maf, "variants": _maf, "segments": _segments}


def _why_none(what: Recognised, head: Head) -> str:
    reasons = {
        "probes": "a map of probes to genes, no measurements",
        "folds": "published folds: name them under `folds` to evaluate on them",
        "list": "a list of names, no table",
        "people": f"words more than numbers, by '{patient_column(head)}': no omics table, nor that of the patients",
    }
    return reasons.get(what.kind, "no row of numbers under names was found in it")
