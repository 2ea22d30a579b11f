"""A download from a UCSC Xena hub: matrices of genes by samples, survival, phenotypes, maps of probes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from foundation.cohort.describe.findings import Findings
from foundation.cohort.describe.heads import Head, read_head
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.people import place_covariates, place_endpoints, place_patients
from foundation.cohort.describe.portals.base import Portal
from foundation.cohort.describe.tables import ENDINGS, place_table
from foundation.errors import ChiasmaError
from foundation.progress import Progress

KNOWN = re.compile(
    r"(sampleMap|(^|[./_])HiSeqV2|Gistic2|clinicalMatrix|(^|[./_])survival\.(txt|tsv)|_survival\.txt|\.star_(tpm|counts|fpkm)"
    r"|\.htseq_(counts|fpkm)|mutation_(broad|wustl|curated|bcm|ucsc)|mutationVector|mutect2_snv|somaticmutation_wxs|"
    r"HumanMethylation|basic_phenotype|GDC_phenotype|\.survival\.tsv|probeMap)",
    re.IGNORECASE,
)
"""Names of datasets in the hubs."""

ASSAYS = (
    (
        "rna",
        r"hiseqv2(?!_exon|_percentile|_pancan)|star_tpm|htseq_fpkm(?!-uq)|htseq_counts|star_counts|star_fpkm|agilentg4502a",
    ),
    ("gistic", r"gistic2_copynumber_gistic2_all_thresholded|gistic2_thresholded|gistic2_copynumber|gene-level_"),
    ("cnv", r"snp6_nocnv|masked_cnv|snp6|cnv_segment|segment"),
    ("mutation", r"mutation_|mutationvector|mutect2|somaticmutation|_mc3|mc3"),
    ("methylation", r"humanmethylation|methylation"),
    ("protein", r"rppa"),
    ("mirna", r"mirna"),
)
"""Modality to the names of the datasets that may be it, the best first."""


class Xena(Portal):
    """A folder of files as a Xena hub serves them, named by their dataset."""

    title = "a download from a Xena hub"

    def recognises(self, listing: Listing) -> bool:
        """By two names of datasets that the hubs have."""
        return sum(bool(KNOWN.search(name)) for name in listing.sizes) > 1

    def place(self, listing: Listing, findings: Findings, progress: Progress) -> None:
        """Place the patients, then one dataset for each assay."""
        maps = [name for name in listing.left() if "probemap" in name.lower()]
        findings.put_aside_many(maps, "maps of probes to genes, no measurements")
        listing.take(maps)
        heads: dict[str, Head] = {}
        names = [name for name in listing.left() if name.endswith(ENDINGS) or _unended(name)]
        progress.start("looking at tables", len(names), "files")
        for name in names:
            problem = ""
            try:
                heads[name] = read_head(listing.path(name))
                if heads[name].comments and heads[name].comments[-1].count("\t") == len(heads[name].names) - 1 > 0:
                    problem = "the line with its columns begins with #, as a comment does. Take the # away."
            except ChiasmaError as error:
                problem = f"{error.what}. {error.fix}."
            if problem:
                heads.pop(name, None)
                findings.put_aside(name, problem)
                listing.take([name])
            progress.advance(bytes=listing.sizes[name])
        progress.finish()
        _place_people(listing, findings, heads)
        _place_assays(listing, findings, [name for name in heads if name not in listing.taken])


def _unended(name: str) -> bool:
    """Whether a dataset of the TCGA hub has kept its name, whose end says nothing: HiSeqV2.gz, LGG_clinicalMatrix."""
    ending = PurePosixPath(name.removesuffix(".gz")).suffix
    return ending in ("", ".by_genes") and bool(KNOWN.search(name))


def _place_people(listing: Listing, findings: Findings, heads: dict[str, Head]) -> None:
    """The survival table has a row for each sample; its column _PATIENT names the patient."""
    survival = next((n for n, h in heads.items() if {"OS", "OS.time"} <= set(h.names)), None)
    phenotypes = [n for n in heads if re.search(r"clinicalMatrix|phenotype|clinical", n)]
    if survival is not None:
        patient = "_PATIENT" if "_PATIENT" in heads[survival].names else heads[survival].names[0]
        table = place_patients(findings, listing, survival, patient, repeated="first")
        if table is not None:
            place_endpoints(findings, table, patient)
    for name in phenotypes:
        patient = next((c for c in ("_PATIENT", "bcr_patient_barcode", "submitter_id") if c in heads[name].names), "")
        patient = patient or heads[name].names[0]
        if findings.patients is None:
            table = place_patients(findings, listing, name, patient, repeated="first")
            if table is not None:
                place_endpoints(findings, table, patient)
                place_covariates(findings, listing, name, patient, table, repeated="first")
            continue
        listing.take([name])
        _add_covariates(listing, findings, name, patient)


def _add_covariates(listing: Listing, findings: Findings, name: str, patient: str) -> None:
    """Covariates of a table beside that of the patients."""
    from foundation.cohort.clinical import ClinicalTable, read_clinical

    try:
        table = read_clinical(ClinicalTable(files=name, patient=patient, repeated="first"), listing.path(name))
    except ChiasmaError as error:
        findings.put_aside(name, f"{error.what}. {error.fix}.")
        return
    before = len(findings.modalities)
    place_covariates(findings, listing, name, patient, table, repeated="first")
    first = findings.patients.file if findings.patients else ""
    said = "its covariates are taken" if len(findings.modalities) > before else "it has no age, sex, stage or grade"
    findings.put_aside(name, f"beside {first}, which says who the patients are; {said}. To predict one of its columns, "
                       f"join it to that table by '{patient}'")  # fmt: skip


def _place_assays(listing: Listing, findings: Findings, names: list[str]) -> None:
    """One dataset for each assay; further forms of the same are named."""
    for modality, expression in ASSAYS:
        words = expression.split("|") if "(" not in expression else re.split(r"\|(?![^(]*\))", expression)
        found = [
            (place, name)
            for name in names
            if name not in listing.taken
            for place, word in enumerate(words)
            if re.search(word, name.lower())
        ]
        taken = ""
        for _, name in sorted(found):
            if name in listing.taken:
                continue
            if taken:
                listing.take([name])
                findings.put_aside(name, f"another form of the same assay as {taken}: name it there if you prefer it")
            elif place_table(findings, listing, name, name=modality, genome=_genome(name)):
                taken = name


def _genome(name: str) -> str:
    """The TCGA hub is hg19, the GDC hub hg38, whose datasets are named TCGA-BRCA.star_tpm and so on."""
    if re.search(r"sampleMap|SNP6", name):
        return "hg19"
    return "hg38" if re.search(r"TCGA-[A-Z]+\.", name) else ""
