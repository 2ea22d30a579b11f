"""A study folder of cBioPortal: meta files that say what each data file is, patients and samples apart, case lists."""

from __future__ import annotations

from pathlib import PurePosixPath

from foundation.cohort.describe.findings import Findings
from foundation.cohort.describe.heads import read_head
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.people import place_covariates, place_endpoints, place_patients
from foundation.cohort.describe.portals.base import Portal
from foundation.cohort.describe.tables import place_table
from foundation.cohort.reading.tables import read_frames
from foundation.errors import ChiasmaError
from foundation.progress import Progress

Meta = dict[str, str]

MODALITIES = {
    "MRNA_EXPRESSION": "rna",
    "COPY_NUMBER_ALTERATION": "gistic",
    "MUTATION_EXTENDED": "mutation",
    "METHYLATION": "methylation",
    "PROTEIN_LEVEL": "protein",
}
"""Type of alteration in a meta file to the modality it becomes."""

NO_PLACE = {
    "STRUCTURAL_VARIANT": "structural variants: no source reads them yet",
    "FUSION": "fusions: no source reads them yet",
    "GENE_PANEL_MATRIX": "which gene panel each sample was sequenced with: a gene outside a panel is not measured, "
    "which the source `maf` does not know",
    "GENERIC_ASSAY": "a generic assay, whose values may be words; describe it by hand as `format: matrix`",
    "GENESET_SCORE": "scores of gene sets, computed from expression",
    "MUTSIG": "genes by their significance over the cohort, no measurement of a patient",
    "GISTIC_GENES_AMP": "amplified regions over the cohort, no measurement of a patient",
    "GISTIC_GENES_DEL": "deleted regions over the cohort, no measurement of a patient",
    "CANCER_TYPE": "the names of cancers",
}

WITHOUT_META = {
    "data_mutations": "MUTATION_EXTENDED",
    "data_mrna": "MRNA_EXPRESSION",
    "data_rna_seq": "MRNA_EXPRESSION",
    "data_cna": "COPY_NUMBER_ALTERATION",
    "data_linear_cna": "COPY_NUMBER_ALTERATION",
    "data_methylation": "METHYLATION",
    "data_rppa": "PROTEIN_LEVEL",
    "data_sv": "STRUCTURAL_VARIANT",
    "data_fusions": "FUSION",
    "data_gene_panel_matrix": "GENE_PANEL_MATRIX",
}
"""How the names of data files begin whose meta file is missing, to the type that it would say."""

PREFERRED = {
    "MRNA_EXPRESSION": ("v2_rsem", "rna_seq", "rna", "mrna"),
    "COPY_NUMBER_ALTERATION": ("gistic", "cna", "linear", "log2"),
    "METHYLATION": ("hm450", "methylation"),
    "PROTEIN_LEVEL": ("rppa", "protein"),
    "MUTATION_EXTENDED": ("mutations",),
}
"""Of several files of one assay, the words of the one that is taken, the best first."""


class CBioPortal(Portal):
    """A folder with meta_study.txt, as a study is laid out in cBioPortal's datahub."""

    title = "a cBioPortal study folder"

    def recognises(self, listing: Listing) -> bool:
        """By the name of the file that every study has."""
        return any(PurePosixPath(name).name == "meta_study.txt" for name in listing.sizes)

    def place(self, listing: Listing, findings: Findings, progress: Progress) -> None:
        """Place what the meta files name, one study after the other where there are several."""
        folders = [str(PurePosixPath(n).parent) for n in listing.sizes if PurePosixPath(n).name == "meta_study.txt"]
        inside = "" if folders[0] == "." else f"{folders[0]}/"
        for other in folders[1:]:
            findings.put_aside(other, "another study: describe it by itself, or join both with `groups`")
            listing.take(name for name in listing.sizes if name.startswith(f"{other}/"))
        metas = _read_metas(listing, inside)
        study = metas.pop(f"{inside}meta_study.txt", {})
        findings.name = _as_name(study.get("cancer_study_identifier", "")) or findings.name
        findings.about += [text for text in (study.get("name", ""), study.get("citation", "")) if text]
        genome = study.get("reference_genome", "")
        files = {f"{inside}{meta['data_filename']}": meta for meta in metas.values() if meta.get("data_filename")}
        for name in list(files):
            if name not in listing.sizes:
                findings.put_aside(name, "named by a meta file, and not there: download it, or forget it")
                del files[name]
        for name in listing.left(".txt"):
            plain = name.removeprefix(inside)
            kind = next((kind for start, kind in WITHOUT_META.items() if plain.startswith(start)), None)
            if kind is not None and name not in files:
                files[name] = {"genetic_alteration_type": kind}
        _place_clinical(listing, findings, inside, files)
        listing.take(files)
        _place_assays(listing, findings, inside, files, genome)
        _set_apart(listing, findings, inside)


def _read_metas(listing: Listing, inside: str) -> dict[str, Meta]:
    found = {}
    for name in [n for n in listing.sizes if n.startswith(f"{inside}meta_") and n.endswith(".txt")]:
        text = listing.path(name).read_text(encoding="utf-8", errors="replace")
        pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
        found[name] = {key.strip(): value.strip() for key, _, value in pairs}
        listing.take([name])
    return found


def _place_clinical(listing: Listing, findings: Findings, inside: str, files: dict[str, Meta]) -> None:
    """The patients and their endpoints, and which sample is whose."""
    by_kind = {
        meta.get("datatype", ""): name
        for name, meta in files.items()
        if meta.get("genetic_alteration_type", "") == "CLINICAL"
    }
    patients = by_kind.get("PATIENT_ATTRIBUTES") or f"{inside}data_clinical_patient.txt"
    samples = by_kind.get("SAMPLE_ATTRIBUTES") or f"{inside}data_clinical_sample.txt"
    if samples in listing.sizes:
        _place_samples(listing, findings, samples)
    if patients in listing.sizes:
        table = place_patients(findings, listing, patients, "PATIENT_ID")
        if table is not None:
            place_endpoints(findings, table, "PATIENT_ID")
            place_covariates(findings, listing, patients, "PATIENT_ID", table)
    else:
        findings.put_aside(patients, "the table of patients of a study, and not there: download it for outcomes")
    for name, meta in files.items():
        if meta.get("genetic_alteration_type", "") == "CLINICAL" and name not in (patients, samples):
            findings.put_aside(
                name, f"{meta.get('datatype', 'clinical').lower()} events over time: no source reads them"
            )


def _place_samples(listing: Listing, findings: Findings, samples: str) -> None:
    """Learn which sample is whose, and say what else the table of samples holds."""
    listing.take([samples])
    try:
        for frame in read_frames(listing.path(samples), ["SAMPLE_ID", "PATIENT_ID"]):
            findings.pairs.update(zip(frame["SAMPLE_ID"].str.strip(), frame["PATIENT_ID"].str.strip(), strict=True))
        columns = [name for name in read_head(listing.path(samples)).names if name not in ("SAMPLE_ID", "PATIENT_ID")]
    except ChiasmaError as error:
        findings.put_aside(samples, f"{error.what}. {error.fix}.")
        return
    findings.put_aside(
        samples,
        f"says which sample is whose, which `patients.barcode` follows. Its columns ({', '.join(columns[:12])}"
        f"{', …' if len(columns) > 12 else ''}) belong to samples: copy one into the table of patients to predict it",
    )


def _place_assays(listing: Listing, findings: Findings, inside: str, files: dict[str, Meta], genome: str) -> None:
    """One file for each assay; other forms of the same are put aside, z-scores over everybody above all."""
    kinds: dict[str, list[str]] = {}
    for name, meta in files.items():
        kind = meta.get("genetic_alteration_type", "")
        if kind in NO_PLACE:
            findings.put_aside(name, NO_PLACE[kind])
        elif kind == "COPY_NUMBER_ALTERATION" and meta.get("datatype") == "SEG":
            place_table(findings, listing, name, name="cnv", genome=_genome(meta, genome))
        elif kind in MODALITIES:
            kinds.setdefault(kind, []).append(name)
        elif kind != "CLINICAL":
            findings.put_aside(name, f"is of a type that is not known here ({kind})")
    for kind, names in kinds.items():
        _place_one(listing, findings, inside, kind, {name: files[name] for name in names})


def _place_one(listing: Listing, findings: Findings, inside: str, kind: str, files: dict[str, Meta]) -> None:
    """Of the forms of one assay the preferred one."""
    scores = sorted(name for name, meta in files.items() if _is_z_score(name, meta))
    measured = sorted(set(files) - set(scores), key=lambda name: _rank(name, kind))
    first, *others = measured or scores
    notes = [text for text in (files[first].get("profile_description", ""),) if text]
    if not measured:
        notes.append("Z-scores over the samples of the study: test patients are in them. Prefer values as measured.")
    chosen = place_table(findings, listing, first, name=MODALITIES[kind], notes=notes)
    if chosen and kind == "MUTATION_EXTENDED":
        _name_the_sequenced(listing, findings, inside, chosen)
    for name in others:
        findings.put_aside(name, f"another form of the same assay as {first}: name it there instead if you prefer it")
    for name in scores if measured else []:
        findings.put_aside(name, f"z-scores over all samples, test patients among them; {first} has what was measured")


def _name_the_sequenced(listing: Listing, findings: Findings, inside: str, modality: str) -> None:
    """Let the case list say who was sequenced."""
    name = f"{inside}case_lists/cases_sequenced.txt"
    if name in listing.sizes:
        listing.take([name])
        found = findings.modalities[modality]
        found.recipe["source"]["sequenced"] = "case_lists/cases_sequenced.txt"
        found.notes = [note for note in found.notes if "sequenced" not in note]
        found.notes.append("The case list says who was sequenced; those without a variant have zeros.")


def _set_apart(listing: Listing, findings: Findings, inside: str) -> None:
    """Case lists and the portal's other files that are no measurements."""
    lists = [name for name in listing.left() if name.startswith(f"{inside}case_lists/")]
    findings.put_aside_many(lists, "lists of samples; who has what is read from the data files themselves")
    panels = [name for name in listing.left() if PurePosixPath(name).name.startswith("data_gene_panel")]
    findings.put_aside_many(panels, NO_PLACE["GENE_PANEL_MATRIX"])
    listing.take([*lists, *panels])


def _is_z_score(name: str, meta: Meta) -> bool:
    return meta.get("datatype") == "Z-SCORE" or "zscore" in f"{name}{meta.get('stable_id', '')}".lower()


def _rank(name: str, kind: str) -> tuple[int, str]:
    words = PREFERRED[kind]
    return next((place for place, word in enumerate(words) if word in name.lower()), len(words)), name


def _genome(meta: Meta, study: str) -> str:
    return meta.get("reference_genome_id") or study or ""


def _as_name(text: str) -> str:
    return text if text.replace("_", "").replace("-", "").isalnum() else ""
