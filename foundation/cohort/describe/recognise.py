"""What one table is, by the names of its columns and its first rows: variants, segments, a matrix, patients."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from foundation.cohort.describe.heads import Head

Kind = Literal["maf", "variants", "segments", "matrix", "people", "probes", "folds", "list", "unknown"]

NO_SAMPLES = {
    "entrez_gene_id", "hugo_symbol", "gene_name", "gene_type", "gene_symbol", "symbol", "cytoband", "description",
    "name",
    "locus id", "chr", "chrom", "chromosome", "start", "end", "strand", "transcript_id", "entity_stable_id", "biotype",
    "composite.element.ref", "gene", "gene_id", "length", "entrezid", "geneid",
}  # fmt: skip
"""Columns, in lower case, that describe features and are no samples."""

SEGMENT_COLUMNS = {
    "sample_column": ("sample", "id", "gdc_aliquot", "sampleid", "sample_id", "tumor_sample_barcode", "aliquot_id"),
    "chromosome_column": ("chromosome", "chrom", "chr"),
    "start_column": ("start", "loc.start", "start_position", "startpos", "chromstart"),
    "end_column": ("end", "loc.end", "end_position", "endpos", "chromend"),
    "value_column": ("segment_mean", "seg.mean", "segmean", "value", "log2", "mean", "copy_number"),
}
"""Key of the source `segments` to the names, in lower case, that its column goes by."""

VARIANT_COLUMNS = {
    "sample_column": ("tumor_sample_barcode", "sample_id", "sample", "#sample", "sampleid"),
    "gene_column": ("hugo_symbol", "gene", "gene_symbol", "symbol"),
    "class_column": ("variant_classification", "effect", "consequence", "variant_class"),
}

PATIENT_COLUMNS = (
    "patient_id", "patient", "bcr_patient_barcode", "case_submitter_id", "cases.submitter_id", "case_id", "_patient",
    "patientid", "subject", "subject_id", "participant_id", "case", "id", "sample", "sampleid", "sample_id",
)  # fmt: skip
"""Names, in lower case, that a column of patients goes by, the most telling first."""

GENES = re.compile(
    r"(ENS[A-Z]*[GT]\d{11}(\.\d+)?(_PAR_Y)?|cg\d{8}|hsa-\w+(-\w+)*|[A-Z][A-Z0-9]{1,9}(-[A-Z0-9]+)?|\d{1,9})$"
)
TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")


class Recognised(NamedTuple):
    """What a table is, and the keys of its source."""

    kind: Kind
    source: dict[str, Any]


def recognise(head: Head, patients: Collection[str] = ()) -> Recognised:
    """Say what a table is.

    Args:
        head: How it begins.
        patients: Names of patients that are known from elsewhere; they tell samples from features.
    """
    lower = {name.lower().strip(): name for name in head.names}
    variants = _find(VARIANT_COLUMNS, lower)
    if len(variants) == len(VARIANT_COLUMNS) and (
        "chromosome" in lower or "chrom" in lower or "chr" in lower or "hugo_symbol" in lower
    ):
        return Recognised("maf" if "variant_classification" in lower else "variants", variants)
    segments = _find(SEGMENT_COLUMNS, lower)
    if len(segments) == len(SEGMENT_COLUMNS) and len(head.names) < 15:
        return Recognised("segments", segments)
    if {"chromstart", "chromend"} <= set(lower):
        return Recognised("probes", {})
    if len(head.names) == 1:
        return Recognised("list", {})
    if (
        "split" in lower
        and len(head.names) <= 4
        and set(head.column(lower["split"])) <= {"train", "val", "test", "valid"}
    ):
        return Recognised("folds", {})
    labels = [row[0].strip() for row in head.rows if row]
    others = [name for name in head.names[1:] if name.lower().strip() not in NO_SAMPLES]
    text = [name for name in others if name in head.text_columns]
    if not head.rows or (len(text) > 0.2 * len(others)):
        return Recognised("people" if labels and len(head.names) > 1 else "unknown", {})
    leave_out = [name for name in head.names[1:] if name not in others] + text
    columns = [name for name in others if name not in text]
    across, down = share_of(columns, patients), share_of(labels, patients)
    if across == down:
        across, down = _named_alike(columns), _named_alike(labels)
    by_feature = across > down or (across == down and len(columns) < 2000 and _genes(labels) >= _genes(columns))
    if not by_feature and any(name in lower for name in ("age", "sex", "gender", "os", "os_months", "stage", "event")):
        return Recognised("people", {})
    source: dict[str, Any] = {"orientation": "features_by_samples" if by_feature else "samples_by_features"}
    if leave_out:
        source["leave_out_columns"] = leave_out
    return Recognised("matrix", source)


def share_of(names: Sequence[str], patients: Collection[str]) -> float:
    """Which part of some names begins with the name of a patient."""
    if not names or not patients:
        return 0.0
    lengths = {len(patient) for patient in patients}
    return sum(any(name[:n] in patients for n in lengths) for name in names) / len(names)


def patient_column(head: Head) -> str:
    """The column that most likely names the patients: by its name, else the first."""
    lower = {name.lower().strip(): name for name in head.names}
    return next((lower[name] for name in PATIENT_COLUMNS if name in lower), head.names[0])


def _find(wanted: dict[str, tuple[str, ...]], lower: dict[str, str]) -> dict[str, Any]:
    return {
        key: next(lower[name] for name in names if name in lower)
        for key, names in wanted.items()
        if any(name in lower for name in names)
    }


def _genes(names: Sequence[str]) -> float:
    return sum(bool(GENES.match(name)) for name in names) / max(1, len(names))


def _named_alike(names: Sequence[str]) -> float:
    """Which part of some names has the commonest shape, letters and digits alike; barcodes of one kind share theirs."""
    if any(TCGA.match(name) for name in names):
        return 1.0
    shapes = [re.sub(r"\d", "0", name) for name in names if any(letter.isdigit() for letter in name)]
    return max((shapes.count(shape) for shape in set(shapes)), default=0) / max(1, len(names))
