"""Folders laid out as portals lay them out: their names, header lines and comments, with simulated values."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

PATIENTS = [f"TCGA-AB-{number:04d}" for number in range(1, 25)]
GENES = ["TP53", "KRAS", "EGFR", "IDH1", "PTEN", "ATRX", "CIC", "FUBP1", "NF1", "RB1"]
ENTREZ = [7157, 3845, 1956, 3417, 5728, 546, 23152, 8880, 4763, 5925]


def write(path: Path, lines: Iterable[str | Iterable[object]]) -> Path:
    """Lines of text, or of cells between tabs; gzipped where the name says so."""
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
        [
            [*head, *samples[:20]],
            *([*numbered[g], *rsem[g]] for g in range(10)),
            ["TP53", 7157, *([1.0] * 20)],
            ["", 100130426, *([0] * 20)],
        ],
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


def uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def barcode(patient: int, kind: str = "01A") -> str:
    return f"{PATIENTS[patient]}-{kind}"


class Cart:
    """Files of the GDC as its client writes them: a folder for each, with logs, and a sheet and a manifest beside."""

    COLUMNS = (
        "File ID",
        "File Name",
        "Data Category",
        "Data Type",
        "Project ID",
        "Case ID",
        "Sample ID",
        "Sample Type",
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sheet: list[list[str]] = []
        self.manifest: list[list[object]] = []

    def add(self, name: str, kind: str, samples: list[str], types: str, lines: Iterable) -> None:
        """One file of some samples; UUID in its name is replaced by one."""
        number = len(self.sheet) + 1
        name = name.replace("UUID", uuid(number + 1000))
        path = write(self.folder / uuid(number) / name, lines)
        cases = ", ".join(sample[:12] for sample in samples)
        self.sheet.append([uuid(number), name, "Category", kind, "TCGA-LGG", cases, ", ".join(samples), types])
        self.manifest.append([uuid(number), name, "d41d8cd98f00b204e9800998ecf8427e", path.stat().st_size, "released"])
        write(self.folder / uuid(number) / "logs" / f"{name}.parcel", ["log"])

    def finish(self) -> None:
        """The sheet, with one file that was not downloaded, and the manifest."""
        missing = [uuid(9999), "x.rna_seq.augmented_star_gene_counts.tsv", "Category", "Gene Expression Quantification",
                   "TCGA-LGG", PATIENTS[23], barcode(23), "Primary Tumor"]  # fmt: skip
        write(self.folder / "gdc_sample_sheet.2024-05-01.tsv", [self.COLUMNS, *self.sheet, missing])
        write(self.folder / "MANIFEST.txt", [["id", "filename", "md5", "size", "state"], *self.manifest])


def star_counts(scale: float) -> Iterable:
    yield "# gene-model: GENCODE v36"
    yield ["gene_id", "gene_name", "gene_type", "unstranded", "stranded_first", "stranded_second", "tpm_unstranded",
           "fpkm_unstranded", "fpkm_uq_unstranded"]  # fmt: skip
    for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"):
        yield [name, "", "", 4_000_000, 4_000_000, 4_000_000, "", "", ""]
    for gene, name in enumerate(GENES):
        tpm = round(1.5 * scale + 10.25 * gene, 4)
        yield [f"ENSG{gene + 141510:011d}.{gene}", name, "protein_coding", 100 * gene, 50, 50, tpm, tpm / 2, 1]


def masked_maf(patient: int, genes: list[str], *, silent: bool) -> Iterable:
    yield from ("#version gdc-1.0.0", "#filedate 20240101", "#annotation.spec gdc-2.0.0-aliquot-merged-masked")
    yield ["Hugo_Symbol", "Entrez_Gene_Id", "Center", "NCBI_Build", "Chromosome", "Start_Position", "End_Position",
           "Strand", "Variant_Classification", "Variant_Type", "Reference_Allele", "Tumor_Seq_Allele1",
           "Tumor_Seq_Allele2", "Tumor_Sample_Barcode", "Matched_Norm_Sample_Barcode"]  # fmt: skip
    for gene, kind in [*((gene, "Missense_Mutation") for gene in genes), *[("EGFR", "Silent")] * silent]:
        yield [gene, 1, "BI", "GRCh38", "chr2", 208248388, 208248388, "+", kind, "SNP", "C", "C", "T",
               f"{barcode(patient)}-11D-A152-08", f"{barcode(patient, '10A')}-01D-A152-08"]  # fmt: skip


def masked_segments(patient: int) -> Iterable:
    yield ["GDC_Aliquot", "Chromosome", "Start", "End", "Num_Probes", "Segment_Mean"]
    yield [uuid(patient + 500), "1", 62920, 110_000_000, 900, 0.01 * patient]
    yield [uuid(patient + 500), "7", 50_000, 50_000_000, 700, -0.5]


def gdc_clinical() -> Iterable:
    """Two rows for each case, one for each treatment."""
    yield ["case_id", "case_submitter_id", "project_id", "age_at_index", "days_to_death", "gender", "race",
           "vital_status", "ajcc_pathologic_stage", "days_to_last_follow_up", "primary_diagnosis",
           "treatment_type"]  # fmt: skip
    for place, patient in enumerate(PATIENTS):
        died = place % 3 == 0
        for treatment in ("Pharmaceutical Therapy, NOS", "Radiation Therapy, NOS"):
            yield [uuid(place + 7000), patient, "TCGA-LGG", 40 + place, 100 + place if died else "'--",
                   ["female", "male"][place % 2], "white", "Dead" if died else "Alive",
                   ["Stage I", "Stage II", "Stage IIIA", "Stage IV"][place % 4], "'--" if died else 900 + place,
                   ["Astrocytoma, NOS", "Oligodendroglioma, NOS"][place % 2], treatment]  # fmt: skip


@pytest.fixture(scope="session")
def gdc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cart: 24 patients, STAR counts of 20 and a normal, MAF of 12 (one without a variant), segments, beta, miRNA."""
    folder = tmp_path_factory.mktemp("gdc") / "gdc_download_20240501"
    cart, primary = Cart(folder), "Primary Tumor"
    expression = "UUID.rna_seq.augmented_star_gene_counts.tsv", "Gene Expression Quantification"
    for patient in range(20):
        cart.add(*expression, [barcode(patient)], primary, star_counts(patient + 1))
    cart.add(*expression, [barcode(3, "11A")], "Solid Tissue Normal", star_counts(91))
    for patient in range(12):
        genes = ["IDH1"] * (patient < 11) + ["TP53"] * (patient < 4)
        cart.add("UUID.wxs.aliquot_ensemble_masked.maf.gz", "Masked Somatic Mutation",
                 [barcode(patient, "10A"), barcode(patient)], f"Blood Derived Normal, {primary}",
                 masked_maf(patient, genes, silent=patient < 11))  # fmt: skip
    for patient in range(10):
        name = "TCGA_SIM_GenomeWideSNP_6_A01_UUID"
        lines = list(masked_segments(patient))
        cart.add(f"{name}.nocnv_grch38.seg.v2.txt", "Masked Copy Number Segment", [barcode(patient)], primary, lines)
        cart.add(f"{name}.grch38.seg.v2.txt", "Copy Number Segment", [barcode(patient)], primary, lines)
    for patient in range(6):
        beta = [[f"cg{n:08d}", "NA" if n == 4 else round(0.1 * n + 0.01 * patient, 4)] for n in range(8)]
        cart.add("UUID.methylation_array.sesame.level3betas.txt", "Methylation Beta Value",
                 [barcode(patient)], primary, beta)  # fmt: skip
    for patient in range(5, 15):
        header = ["miRNA_ID", "read_count", "reads_per_million_miRNA_mapped", "cross-mapped"]
        rows = [[f"hsa-mir-{n}", n * 3, n * 100.5 + patient, "N"] for n in range(1, 7)]
        cart.add("UUID.mirbase21.mirnas.quantification.txt", "miRNA Expression Quantification",
                 [barcode(patient)], primary, [header, *rows])  # fmt: skip
    cart.add("TCGA-AB-0001-01Z-00-DX1.UUID.svs", "Slide Image", [barcode(0)], primary, ["slide"])
    cart.finish()
    write(folder / uuid(2) / "annotations.txt", [["id", "submitter_id", "category"], ["a", PATIENTS[1], "Notice"]])
    write(folder / "clinical.tsv", gdc_clinical())
    write(folder / "exposure.tsv", [["case_id", "case_submitter_id", "cigarettes_per_day"], ["a", PATIENTS[0], 2]])
    return folder


@pytest.fixture(scope="session")
def xena(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TCGA hub's files of one cancer, as they are named there: most have no ending but .gz."""
    folder, draw = tmp_path_factory.mktemp("xena") / "xena_lgg", np.random.default_rng(2)
    samples = [f"{patient}-01" for patient in PATIENTS]
    hub = folder / "TCGA.LGG.sampleMap"
    rna = np.round(draw.uniform(0, 16, (10, 19)), 4)
    normal = f"{PATIENTS[0]}-11"
    write(hub / "HiSeqV2.gz", [["sample", *samples[:18], normal], *([GENES[g], *rna[g]] for g in range(10))])
    levels = draw.integers(-2, 3, (10, 20))
    write(
        hub / "Gistic2_CopyNumber_Gistic2_all_thresholded.by_genes.gz",
        [["Gene Symbol", *samples[:20]], *([GENES[g], *levels[g]] for g in range(10))],
    )
    write(
        hub / "Gistic2_CopyNumber_Gistic2_all_data_by_genes.gz",
        [["Gene Symbol", *samples[:20]], *([GENES[g], *(levels[g] * 0.4)] for g in range(10))],
    )
    write(
        hub / "SNP6_nocnv_genomicSegment.gz",
        [
            ["sample", "chr", "start", "end", "value"],
            *([sample, "chr1", 61735, 100_000_000, 0.25] for sample in samples[:9]),
            *([sample, "chr19", 28_000_000, 59_000_000, -0.75] for sample in samples[:9]),
        ],
    )
    write(
        folder / "mc3" / "LGG_mc3.txt.gz",
        [
            ["sample", "chr", "start", "end", "reference", "alt", "gene", "effect", "Amino_Acid_Change", "DNA_VAF",
             "SIFT", "PolyPhen"],
            *([sample, "2", 209113112, 209113112, "C", "T", "IDH1", "Missense_Mutation", "p.R132H", 0.4, "", ""]
              for sample in samples[:12]),
            *([sample, "17", 7577120, 7577120, "C", "T", "TP53", "Nonsense_Mutation", "p.R273*", 0.4, "", ""]
              for sample in samples[:3]),
            *([sample, "7", 55019017, 55019017, "C", "T", "EGFR", "Silent", "", 0.4, "", ""]
              for sample in samples[:14]),
        ],
    )  # fmt: skip
    dead = draw.random(24) < 0.5
    write(
        folder / "survival" / "LGG_survival.txt",
        [
            ["sample", "_PATIENT", "OS", "OS.time", "DSS", "DSS.time", "DFI", "DFI.time", "PFI", "PFI.time",
             "Redaction"],
            *(
                [sample, patient, int(dead[place]), 300 + place, int(dead[place]), 300 + place, "", "", place % 2,
                 200 + place, ""]
                for place, (sample, patient) in enumerate(zip(samples, PATIENTS, strict=True))
            ),
            [normal, PATIENTS[0], int(dead[0]), 300, int(dead[0]), 300, "", "", 0, 200, ""],
        ],
    )  # fmt: skip
    write(
        hub / "LGG_clinicalMatrix",
        [
            ["sampleID", "_PATIENT", "age_at_initial_pathologic_diagnosis", "gender", "neoplasm_histologic_grade",
             "histological_type", "vital_status"],
            *([sample, patient, 30 + place, ["FEMALE", "MALE"][place % 2], ["G2", "G3"][place % 2], "Astrocytoma",
               "LIVING"]
              for place, (sample, patient) in enumerate(zip(samples, PATIENTS, strict=True))),
            [normal, PATIENTS[0], 30, "FEMALE", "G2", "Astrocytoma", "LIVING"],
        ],
    )  # fmt: skip
    write(
        folder / "probeMap" / "hugo_gencode_good_hg19_V24lift37_probemap",
        [
            ["#id", "gene", "chrom", "chromStart", "chromEnd", "strand"],
            ["TP53", "TP53", "chr17", 7571720, 7590868, "-"],
        ],
    )
    return folder
