"""Folders laid out as portals lay them out: their names, header lines and comments, with simulated values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

PATIENTS = [f"TCGA-AB-{number:04d}" for number in range(1, 25)]
GENES = ["TP53", "KRAS", "EGFR", "IDH1", "PTEN", "ATRX", "CIC", "FUBP1", "NF1", "RB1"]
ENTREZ = [7157, 3845, 1956, 3417, 5728, 546, 23152, 8880, 4763, 5925]


def write(path: Path, lines: Iterable[str | Iterable[object]]) -> Path:
    """Lines of text, or of cells between tabs; gzipped where the name says so."""
    import gzip

    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else "\t".join(map(str, line))) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture(scope="session")
def cbioportal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study: 24 patients, 20 with RNA, 16 sequenced of whom 2 have no variant, GISTIC, RPPA, segments."""
    folder, draw = tmp_path_factory.mktemp("cbio") / "lgg_tcga_sim", np.random.default_rng(1)
    samples = [f"{patient}-01" for patient in PATIENTS]
    write(
        folder / "meta_study.txt",
        ["type_of_cancer: difg", "cancer_study_identifier: lgg_tcga_sim", "name: Simulated Glioma (TCGA, simulated)",
         "description: Simulated: 24 patients.", "reference_genome: hg19"],
    )  # fmt: skip
    metas = {
        "clinical_patient": ("CLINICAL", "PATIENT_ATTRIBUTES", "", "data_clinical_patient.txt"),
        "clinical_sample": ("CLINICAL", "SAMPLE_ATTRIBUTES", "", "data_clinical_sample.txt"),
        "mrna_seq_v2_rsem": ("MRNA_EXPRESSION", "CONTINUOUS", "rna_seq_v2_mrna", "data_mrna_seq_v2_rsem.txt"),
        "mrna_seq_v2_rsem_zscores_ref_all_samples": (
            "MRNA_EXPRESSION", "Z-SCORE", "rna_seq_v2_mrna_median_all_sample_Zscores",
            "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt",
        ),
        "cna": ("COPY_NUMBER_ALTERATION", "DISCRETE", "gistic", "data_cna.txt"),
        "linear_cna": ("COPY_NUMBER_ALTERATION", "CONTINUOUS", "linear_CNA", "data_linear_cna.txt"),
        "cna_hg19_seg": ("COPY_NUMBER_ALTERATION", "SEG", "segment", "data_cna_hg19.seg"),
        "mutations": ("MUTATION_EXTENDED", "MAF", "mutations", "data_mutations.txt"),
        "methylation_hm450": ("METHYLATION", "CONTINUOUS", "methylation_hm450", "data_methylation_hm450.txt"),
        "rppa": ("PROTEIN_LEVEL", "LOG2-VALUE", "rppa", "data_rppa.txt"),
        "sv": ("STRUCTURAL_VARIANT", "SV", "structural_variants", "data_sv.txt"),
        "timeline_treatment": ("CLINICAL", "TIMELINE", "", "data_timeline_treatment.txt"),
    }  # fmt: skip
    for name, (kind, datatype, stable, file) in metas.items():
        lines = ["cancer_study_identifier: lgg_tcga_sim", f"genetic_alteration_type: {kind}", f"datatype: {datatype}"]
        lines += [f"stable_id: {stable}", "show_profile_in_analysis_tab: false"] * bool(stable)
        lines += ["reference_genome_id: hg19"] * (datatype == "SEG") + [f"data_filename: {file}"]
        write(folder / f"meta_{name}.txt", lines)

    dead = draw.random(24) < 0.5
    months = np.round(draw.uniform(0.5, 90, 24), 2)
    columns = ["PATIENT_ID", "SUBTYPE", "AGE", "SEX", "CENTER", "OS_STATUS", "OS_MONTHS", "PFS_STATUS", "PFS_MONTHS"]
    write(
        folder / "data_clinical_patient.txt",
        [
            ["#Patient Identifier", "Subtype", "Diagnosis Age", "Sex", "Center", "Overall Survival Status",
             "Overall Survival (Months)", "Progression Free Status", "Progress Free Survival (Months)"],
            "#Identifier to uniquely specify a patient.\tSubtype\tAge\tSex\tCenter\tOS\tOS months\tPFS\tPFS months",
            "#STRING\tSTRING\tNUMBER\tSTRING\tSTRING\tSTRING\tNUMBER\tSTRING\tNUMBER",
            "#1\t1\t1\t1\t1\t1\t1\t1\t1",
            columns,
            *(
                [patient, ["LGG_IDHwt", "LGG_IDHmut-codel", "LGG_IDHmut-non-codel"][place % 3] if place else "",
                 int(draw.integers(25, 80)), ["Male", "Female"][place % 2], ["AB", "CD", "EF"][place % 3],
                 "1:DECEASED" if dead[place] else "0:LIVING", months[place],
                 "1:PROGRESSION" if place % 2 else "0:CENSORED", months[place] / 2 if place != 5 else ""]
                for place, patient in enumerate(PATIENTS)
            ),
        ],
    )  # fmt: skip
    write(
        folder / "data_clinical_sample.txt",
        [
            "#Patient Identifier\tSample Identifier\tOncotree Code\tTMB (nonsynonymous)",
            "#Identifier to uniquely specify a patient.\tA unique sample identifier.\tOncotree Code\tTMB",
            "#STRING\tSTRING\tSTRING\tNUMBER",
            "#1\t1\t1\t1",
            ["PATIENT_ID", "SAMPLE_ID", "ONCOTREE_CODE", "TMB_NONSYNONYMOUS"],
            *([patient, sample, "DIFG", 1.5] for patient, sample in zip(PATIENTS, samples, strict=True)),
        ],
    )
    rsem = np.round(draw.lognormal(5, 2, (10, 20)), 4)
    head = ["Hugo_Symbol", "Entrez_Gene_Id"]
    numbered = list(zip(GENES, ENTREZ, strict=True))
    write(
        folder / "data_mrna_seq_v2_rsem.txt",
        [[*head, *samples[:20]], *([*numbered[g], *rsem[g]] for g in range(10)), ["TP53", 7157, *([1.0] * 20)]],
    )
    scores = (rsem - rsem.mean(1, keepdims=True)) / rsem.std(1, keepdims=True)
    write(
        folder / "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt",
        [[*head, *samples[:20]], *([*numbered[g], *np.round(scores[g], 4)] for g in range(10))],
    )
    levels = draw.integers(-2, 3, (10, 22))
    write(folder / "data_cna.txt", [[*head, *samples[:22]], *([*numbered[g], *levels[g]] for g in range(10))])
    write(
        folder / "data_linear_cna.txt",
        [[*head, *samples[:22]], *([*numbered[g], *np.round(levels[g] * 0.37, 3)] for g in range(10))],
    )
    write(
        folder / "data_cna_hg19.seg",
        [
            ["ID", "chrom", "loc.start", "loc.end", "num.mark", "seg.mean"],
            *([sample, 1, 3_218_610, 120_000_000, 2000, 0.25] for sample in samples[:18]),
            *([sample, 7, 50_000, 55_000_000, 900, -0.5] for sample in samples[:18]),
        ],
    )
    maf = ["Hugo_Symbol", "Entrez_Gene_Id", "Center", "NCBI_Build", "Chromosome", "Start_Position", "End_Position",
           "Strand",
           "Consequence", "Variant_Classification", "Variant_Type", "Reference_Allele", "Tumor_Seq_Allele1",
           "Tumor_Seq_Allele2", "dbSNP_RS", "Tumor_Sample_Barcode"]  # fmt: skip

    def variant(gene: str, kind: str, sample: str) -> list[object]:
        entrez = dict(zip(GENES, ENTREZ, strict=True))[gene]
        return [
            gene,
            entrez,
            ".",
            "GRCh37",
            "2",
            209113112,
            209113112,
            "+",
            "x",
            kind,
            "SNP",
            "C",
            "C",
            "T",
            "",
            sample,
        ]

    write(
        folder / "data_mutations.txt",
        [
            "#sequenced_samples: " + " ".join(samples[:16]),
            maf,
            *(variant("IDH1", "Missense_Mutation", sample) for sample in samples[:14]),
            *(variant("TP53", "Nonsense_Mutation", sample) for sample in samples[:5]),
            *(variant("ATRX", "Silent", sample) for sample in samples[:9]),
        ],
    )
    write(
        folder / "data_methylation_hm450.txt",
        [[*head, *samples[:12]], *([*numbered[g], *np.round(draw.random(12), 5)] for g in range(10))],
    )
    write(
        folder / "data_rppa.txt",
        [
            ["Composite.Element.REF", *samples[4:]],
            *([f"{GENES[g]}|{GENES[g].title()}_pS{g}", *np.round(draw.normal(0, 1, 20), 4)] for g in range(6)),
        ],
    )
    write(
        folder / "data_sv.txt",
        [
            ["Sample_Id", "SV_Status", "Site1_Hugo_Symbol", "Site2_Hugo_Symbol"],
            [samples[0], "SOMATIC", "FGFR3", "TACC3"],
        ],
    )
    write(
        folder / "data_timeline_treatment.txt",
        [["PATIENT_ID", "START_DATE", "STOP_DATE", "EVENT_TYPE"], [PATIENTS[0], 10, 40, "TREATMENT"]],
    )
    for name, some in (("all", samples), ("sequenced", samples[:16]), ("rna_seq_v2_mrna", samples[:20])):
        write(
            folder / "case_lists" / f"cases_{name}.txt",
            ["cancer_study_identifier: lgg_tcga_sim", f"stable_id: lgg_tcga_sim_{name}", "case_list_name: Samples",
             f"case_list_description: Samples ({len(some)} samples)", "case_list_category: x",
             "case_list_ids: " + "\t".join(some)],
        )  # fmt: skip
    return folder
