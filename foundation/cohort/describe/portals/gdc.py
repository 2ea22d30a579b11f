"""A download from the GDC: a folder for each file, a sample sheet that says whose it is, clinical tables."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Any

from foundation.cohort.describe.findings import Findings, FoundModality
from foundation.cohort.describe.heads import Head, is_number, read_head
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.people import place_covariates, place_endpoints, place_patients
from foundation.cohort.describe.portals.base import Portal
from foundation.cohort.describe.recognise import patient_column, recognise
from foundation.cohort.describe.tables import samples_of
from foundation.cohort.reading.tables import read_frames
from foundation.errors import ChiasmaError
from foundation.progress import Progress
from foundation.wording import counted

SHEET = re.compile(r"gdc_sample_sheet.*\.tsv$")
SHEET_COLUMNS = ["File ID", "File Name", "Data Type", "Sample ID"]
MANIFEST = re.compile(r"(MANIFEST\.txt|gdc_manifest.*\.txt)$")
CLINICAL = re.compile(r"(^|/)clinical(\.[^/]*)?\.tsv$")
BESIDE_CLINICAL = re.compile(r"(^|/)(exposure|family_history|follow_up|pathology_detail)(\.[^/]*)?\.tsv$")
UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")

VALUES = (
    ("gene_name", "tpm_unstranded", "rna", {"transform": ["log2p1"], "unit": "log2(TPM + 1)"}),
    ("miRNA_ID", "reads_per_million_miRNA_mapped", "mirna", {"transform": ["log2p1"], "unit": "log2(RPM + 1)"}),
    ("peptide_target", "protein_expression", "protein", {"unit": "RPPA, normalised"}),
    ("gene_name", "copy_number", "cnv_genes", {"unit": "copies"}),
)
"""Of files with one row per feature: its column, that of the value, the modality, and what the values are."""

HEADLESS = {
    "Methylation Beta Value": ("methylation", {"unit": "beta"}),
    "Gene Expression Quantification": ("rna", {"transform": ["log2p1"], "unit": "log2(value + 1)"}),
}
"""Data types whose files have two columns and no header."""

PREFERRED = ("masked copy number segment", "copy number segment")
"""Of several kinds of segments the first is taken: without germline variants, as log ratios."""

NO_PLACE = {
    ".svs": "whole-slide images: no source reads them yet",
    ".bam": "aligned reads: call variants or count them first",
    ".vcf.gz": "variant calls: the GDC offers the same as MAF (Masked Somatic Mutation)",
    ".xml": "XML of the submitter: the clinical tables have what is needed",
    ".pdf": "a report",
}


class Gdc(Portal):
    """A folder that gdc-client or the portal's cart has filled."""

    title = "a GDC download"

    def recognises(self, listing: Listing) -> bool:
        """By a sample sheet or a manifest, or by folders that are named by UUIDs."""
        names = [PurePosixPath(name) for name in listing.sizes]
        if any(SHEET.match(name.name) or MANIFEST.match(name.name) for name in names):
            return True
        return sum(len(name.parts) > 1 and bool(UUID.fullmatch(name.parts[-2])) for name in names) > len(names) / 2

    def place(self, listing: Listing, findings: Findings, progress: Progress) -> None:
        """Place the clinical table, then the files of every data type in the sample sheets."""
        _place_clinical(listing, findings)
        sheets = [name for name in listing.left(".tsv") if SHEET.match(PurePosixPath(name).name)]
        listing.take(sheets)
        by_folder = {"/".join(PurePosixPath(name).parts[-2:]): name for name in listing.sizes}
        for sheet in sheets:
            _place_sheet(listing, findings, sheet, by_folder)
        manifests = [name for name in listing.left(".txt") if MANIFEST.match(PurePosixPath(name).name)]
        findings.put_aside_many(manifests, "the list of what was downloaded")
        logs = [
            name for name in listing.left() if name.endswith(".parcel") or PurePosixPath(name).name == "annotations.txt"
        ]
        findings.put_aside_many(logs, "notes of the GDC on files that were withdrawn or revised, and logs: read them")
        listing.take([*manifests, *logs])
        alone = [name for name in listing.left() if UUID.fullmatch(PurePosixPath(name).parent.name)]
        if alone:
            listing.take(alone)
            findings.put_aside_many(
                alone,
                "no sample sheet says whose it is: in the cart of the portal press Sample Sheet and put the file here",
            )


def _place_clinical(listing: Listing, findings: Findings) -> None:
    for name in [name for name in listing.left(".tsv") if CLINICAL.search(name)]:
        head = read_head(listing.path(name))
        patient = next(
            (c for c in ("cases.submitter_id", "case_submitter_id") if c in head.names), patient_column(head)
        )
        if findings.patients is not None:
            findings.put_aside(name, "a second clinical table: join it to the first")
            listing.take([name])
            continue
        table = place_patients(findings, listing, name, patient, repeated="first")
        if table is not None and findings.patients is not None:
            findings.patients.notes.append(
                "The GDC writes a row for each diagnosis and treatment: of each column a patient's first value counts. "
                "DECIDE whether that is the diagnosis you mean."
            )
            place_endpoints(findings, table, patient)
            place_covariates(findings, listing, name, patient, table, repeated="first")
    others = [name for name in listing.left(".tsv") if BESIDE_CLINICAL.search(name)]
    findings.put_aside_many(others, "several rows per patient over time: join what you need to the clinical table")
    json = [name for name in listing.left(".json") if re.search(r"clinical|biospecimen|metadata", name)]
    findings.put_aside_many(json, "JSON: download the same as TSV, which is read")
    listing.take([*others, *json])


def _place_sheet(listing: Listing, findings: Findings, sheet: str, by_folder: dict[str, str]) -> None:
    """One modality for each data type of a sheet."""
    try:
        rows = [row for frame in read_frames(listing.path(sheet), SHEET_COLUMNS) for row in frame.to_dict("records")]
    except ChiasmaError as error:
        findings.put_aside(sheet, f"{error.what}. {error.fix}.")
        return
    kinds: dict[tuple[str, str], list[tuple[str, dict[str, str]]]] = {}
    absent = []
    for row in rows:
        name = by_folder.get(f"{row['File ID']}/{row['File Name']}")
        if name is None:
            absent.append(row["File Name"])
        else:
            kinds.setdefault((row["Data Type"], _ending(row["File Name"])), []).append((name, row))
    if absent:
        findings.put_aside(sheet, f"{len(absent)} of the {len(rows)} files that it names are not here: download them")
    segments = [kind for kind in kinds if kind[0].lower() in PREFERRED]
    best = min(segments, key=lambda kind: PREFERRED.index(kind[0].lower()), default=None)
    for (data_type, ending), files in sorted(kinds.items()):
        names = [name for name, _ in files]
        listing.take(names)
        if best and (data_type, ending) in segments and (data_type, ending) != best:
            findings.put_aside(
                f"{data_type} ({counted(len(names), 'file')})", f"{best[0]} is taken, without germline variants"
            )
            continue
        several = sum(kind == data_type for kind, _ in kinds) > 1
        where: dict[str, Any] = {"Data Type": [data_type]} | ({"File Name": [f"*{ending}"]} if several else {})
        prefix = names[0].removesuffix(f"{files[0][1]['File ID']}/{files[0][1]['File Name']}")
        inside = os.path.relpath(prefix or ".", str(PurePosixPath(sheet).parent))
        template = "{File ID}/{File Name}" if inside == "." else f"{inside}/{{File ID}}/{{File Name}}"
        source = {"format": "per_sample", "files": sheet, "where": where, "file": template, "sample": "Sample ID"}
        why = _place_kind(listing, findings, source, data_type, ending, names)
        if why:
            findings.put_aside(f"{data_type} ({counted(len(names), 'file')})", why)


def _place_kind(
    listing: Listing, findings: Findings, source: dict[str, Any], data_type: str, ending: str, names: list[str]
) -> str:
    """Add the modality of one data type; or say why it has no place."""
    if ending in NO_PLACE:
        return NO_PLACE[ending]
    try:
        head = read_head(listing.path(names[0]))
        made = _made(head, source, data_type, ending)
        if made is None:
            return "no source reads files of this type"
        name, found = made
        found.where = f"{source['files']}, {data_type}"
        found.holds = f"{counted(len(names), 'file')} of one sample each"
        found.samples = samples_of(found.recipe["source"], listing)
    except ChiasmaError as error:
        return f"{error.what}. {error.fix}."
    findings.add(name, found)
    return ""


def _made(head: Head, source: dict[str, Any], data_type: str, ending: str) -> tuple[str, FoundModality] | None:
    """The modality of files like this one."""
    for feature, value, name, recipe in VALUES:
        if {feature, value} <= set(head.names):
            each = {"format": "values", "feature": feature, "value": value, "duplicate_features": "mean"}
            notes = []
            others = [other for other in head.names if other not in head.text_columns and other != value]
            if name == "rna":
                notes = [
                    f"TPM; the same files also have {', '.join(others)}.",
                    "Genes by symbol, as gene sets name them; a symbol of several genes becomes their mean.",
                    "`feature: gene_id` keeps them apart.",
                ]
            return name, FoundModality({"kind": "omics", "source": source | {"each": each}, **recipe}, "", "", notes)
    what = recognise(head)
    if what.kind == "maf":
        notes = [
            "A sample whose file has no variant of a gene has 0 there; a sample without a file was not sequenced.",
            "min_patients drops genes that are hit in fewer patients.",
        ]
        each = {"format": "maf", "min_patients": 2}
        return "mutation", FoundModality(
            {"kind": "omics", "source": source | {"each": each}, "values": "binary"}, "", "", notes
        )
    if what.kind == "segments":
        columns = {**what.source}
        defaults = {"sample_column": "Sample", "chromosome_column": "Chromosome", "start_column": "Start",
                    "end_column": "End", "value_column": "Segment_Mean"}  # fmt: skip
        each = {"format": "segments", "genome": "hg38", "resolution": "arms"}
        each |= {key: column for key, column in columns.items() if column != defaults[key]}
        copies = columns["value_column"] == "Copy_Number"
        recipe = {"kind": "omics", "source": source | {"each": each}, "unit": "copies" if copies else "log2 ratio"}
        return "cnv", FoundModality(recipe, "", "", ["hg38, as all harmonised data of the GDC; legacy files are hg19."])
    if len(head.names) == 2 and data_type in HEADLESS and is_number(head.names[1]):
        name, recipe = HEADLESS[data_type]
        each = {"format": "values", "feature": "1", "value": "2", "header": False}
        return name, FoundModality({"kind": "omics", "source": source | {"each": each}, **recipe}, "", "")
    return None


def _ending(name: str) -> str:
    """What files of one workflow have in common: a name without what is one file's own."""
    parts = name.split(".")
    kept = [part for part in parts[1:] if not UUID.search(part) and not re.fullmatch(r"[0-9a-f]{16,}", part)]
    return "." + ".".join(kept[-3:] if not name.endswith((".vcf.gz",)) else ["vcf", "gz"])
