"""The tables of a simulated cohort, in the formats in which assays and registries hand them over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from foundation.simulation import assays
from foundation.simulation.biology import CHROMOSOMES, Biology
from foundation.simulation.files import write_table
from foundation.simulation.latent import SUBTYPES
from foundation.simulation.outcomes import RESPONSES
from foundation.simulation.subject import Subject

PRIMARY, BLOOD = "01A", "10A"

MAF_COLUMNS = (
    "Hugo_Symbol",
    "NCBI_Build",
    "Chromosome",
    "Start_Position",
    "End_Position",
    "Variant_Classification",
    "Variant_Type",
    "Reference_Allele",
    "Tumor_Seq_Allele2",
    "Tumor_Sample_Barcode",
    "Matched_Norm_Sample_Barcode",
    "HGVSp_Short",
)


def write_rna(out: Path, seed: int, biology: Biology, subjects: Sequence[Subject]) -> None:
    """Write ``rna.tsv.gz``: genes by samples, transcripts per million, with normals and second samples."""
    samples = [(s, kind) for s in subjects if "rna" in s.presence.assays for kind in (PRIMARY, *s.presence.samples)]
    columns = [assays.rna(seed, biology, s.patient, kind).astype(np.float32) for s, kind in samples]
    values_FS = np.stack(columns, axis=1) if columns else np.empty((len(biology.genes), 0))
    rows = (
        [gene, *(f"{value:.2f}" for value in row.tolist())] for gene, row in zip(biology.genes, values_FS, strict=True)
    )
    write_table(out / "rna.tsv.gz", ["gene", *(s.barcode(kind) for s, kind in samples)], rows)


def write_mutations(out: Path, seed: int, biology: Biology, subjects: Sequence[Subject]) -> None:
    """Write ``mutations.maf.gz``, and who and what was sequenced, with or without a hit.

    These are ``sequenced_samples.txt`` and ``covered_genes.txt``.
    """
    sequenced = [s for s in subjects if "mutation" in s.presence.assays]
    rows = (
        _maf_row(biology, hit, subject)
        for subject in sequenced
        for hit in assays.mutations(seed, biology, subject.patient)
    )
    write_table(out / "mutations.maf.gz", MAF_COLUMNS, rows)
    (out / "sequenced_samples.txt").write_text("".join(f"{s.barcode(PRIMARY)}\n" for s in sequenced))
    (out / "covered_genes.txt").write_text("".join(f"{gene}\n" for gene in biology.genes))


def _maf_row(biology: Biology, hit: assays.Hit, subject: Subject) -> list[object]:
    names = list(CHROMOSOMES)
    row_on_chromosome, chromosome = divmod(hit.gene, len(names))
    place = 1_000_000 * (row_on_chromosome + 1) + 3 * hit.residue
    deletion = hit.variant == "Frame_Shift_Del"
    return [
        biology.genes[hit.gene],
        "GRCh38",
        names[chromosome],
        place,
        place,
        hit.variant,
        "DEL" if deletion else "SNP",
        "C",
        "-" if deletion else "T",
        subject.barcode(PRIMARY),
        subject.barcode(BLOOD),
        f"p.R{hit.residue}{'fs' if deletion else '*' if hit.variant == 'Nonsense_Mutation' else 'C'}",
    ]


def write_segments(out: Path, seed: int, biology: Biology, subjects: Sequence[Subject]) -> None:
    """Write ``segments.seg.gz``: log2 ratios of tumours, and of some patients' blood."""

    def rows() -> Iterator[list[object]]:
        for subject in subjects:
            kinds = [PRIMARY] * ("cnv" in subject.presence.assays) + [BLOOD] * subject.presence.blood
            for kind in kinds:
                for row in assays.segments(seed, biology, subject.patient, normal=kind == BLOOD):
                    yield [subject.barcode(kind), *row]

    write_table(out / "segments.seg.gz", ["Sample", "Chromosome", "Start", "End", "Num_Probes", "Segment_Mean"], rows())


def write_protein(out: Path, seed: int, biology: Biology, subjects: Sequence[Subject]) -> None:
    """Write ``protein.h5ad``: samples by proteins, each named by its gene, NaN where the antibody failed."""
    import anndata
    import pandas

    measured = [s for s in subjects if "protein" in s.presence.assays]
    genes = [biology.genes[position] for position in biology.proteins]
    values_SF = np.array([assays.protein(seed, biology, s.patient) for s in measured]).reshape(-1, len(genes))
    table = anndata.AnnData(
        values_SF.astype(np.float32),
        obs=pandas.DataFrame(
            {"site": [_site(s) for s in measured]}, index=pandas.Index([s.barcode(PRIMARY) for s in measured])
        ),
        var=pandas.DataFrame(index=pandas.Index(genes)),
    )
    table.strings_to_categoricals()
    table.write_h5ad(out / "protein.h5ad")


def write_clinical(out: Path, subjects: Sequence[Subject]) -> None:
    """Write ``clinical.tsv``: one row per patient, empty where nobody wrote it down."""
    header = ["patient", "site", "age", "sex", "stage", "subtype", "response", "os_days", "os_event"]
    header += ["toxicity", "seizure_days", "seizure_event"]
    rows = [
        [
            s.patient.name,
            _site(s),
            s.patient.age if s.presence.age else None,
            s.patient.sex,
            ("I", "II", "III", "IV")[s.patient.stage - 1],
            SUBTYPES[s.patient.subtype] if s.presence.subtype else None,
            RESPONSES[s.outcome.response] if s.presence.response else None,
            s.outcome.days,
            s.outcome.event,
            ("no", "yes")[s.outcome.toxicity] if s.presence.toxicity else None,
            s.outcome.seizure_days if s.presence.seizure else None,
            s.outcome.seizure_event if s.presence.seizure else None,
        ]
        for s in subjects
    ]
    write_table(out / "clinical.tsv", header, rows)


def write_pathways(out: Path, biology: Biology) -> None:
    """Write ``pathways.gmt``: a pathway, a description and its genes per line."""
    lines = [
        "\t".join([name, "simulated", *(biology.genes[g] for g in genes)]) for name, genes in biology.pathways.items()
    ]
    (out / "pathways.gmt").write_text("\n".join(lines) + "\n")


def _site(subject: Subject) -> str:
    return f"site-{subject.patient.site.number}"
