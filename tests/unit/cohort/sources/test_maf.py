"""Mutations of a MAF file as patients × genes, against a reference in pandas."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foundation.cohort.reading import tables
from foundation.cohort.sources import maf
from foundation.errors import DataError

SAMPLES = [f"TCGA-AA-{i:04d}-01A-11D-1490-08" for i in range(40)]
GENES = ["TP53", "IDH1", "EGFR", "TTN", "ATRX", "CIC"]
CLASSES = ["Missense_Mutation", "Silent", "Frame_Shift_Del", "Intron", "Splice_Site", "3'UTR"]
DAMAGING = {"Missense_Mutation", "Frame_Shift_Del", "Splice_Site"}


def variants(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "Hugo_Symbol": generator.choice([*GENES, "Unknown"], rows, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05]),
            "Chromosome": "1",
            "Variant_Classification": generator.choice(CLASSES, rows),
            "Tumor_Sample_Barcode": generator.choice(SAMPLES[:30], rows),
            "Protein_Change": "p.A1#T",
        }
    )
    # One patient whose variants are all silent: sequenced, and without a hit.
    silent = pd.DataFrame([["TTN", "1", "Silent", SAMPLES[35], ""]], columns=frame.columns)
    return pd.concat([frame, silent], ignore_index=True)


def write(frame: pd.DataFrame, path: Path, comment: str = "#version 2.4\n#by a caller\n") -> Path:
    text = comment + frame.to_csv(sep="\t", index=False)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def reference(frame: pd.DataFrame, samples: list[str], at_least: int = 1) -> pd.DataFrame:
    hit = frame[frame["Variant_Classification"].isin(DAMAGING) & (frame["Hugo_Symbol"] != "Unknown")]
    table = pd.crosstab(hit["Tumor_Sample_Barcode"], hit["Hugo_Symbol"]).reindex(samples, fill_value=0).clip(upper=1)
    return table.loc[:, table.sum() >= at_least]


@pytest.mark.parametrize("name", ["t.maf", "t.maf.gz", "t.txt"])
@pytest.mark.parametrize("small", [False, True])
def test_patient_by_gene(tmp_path, open_source, assemble, monkeypatch, name, small):
    if small:
        monkeypatch.setattr(tables, "PIECE_BYTES", 700)
        monkeypatch.setattr(maf, "BLOCK_VALUES", 13)
    frame = variants()
    source = open_source(write(frame, tmp_path / name), format="maf")
    samples = source.list_samples()
    assert samples == list(dict.fromkeys(frame["Tumor_Sample_Barcode"]))
    features, values = assemble(source)
    expected = reference(frame, samples)
    assert features == sorted(expected.columns)
    np.testing.assert_array_equal(values, expected[features].to_numpy())
    assert values[samples.index(SAMPLES[35])].sum() == 0


def test_the_minimum_counts_the_given_samples_alone(tmp_path, open_source, assemble):
    frame = variants()
    given = list(reversed(SAMPLES[:12]))
    for least in (1, 4, 8):
        features, values = assemble(
            open_source(write(frame, tmp_path / "t.maf"), format="maf", min_patients=least), given
        )
        expected = reference(frame, given, least)
        assert features == sorted(expected.columns)
        np.testing.assert_array_equal(values, expected[features].to_numpy())


def test_two_variants_of_one_patient_count_once(tmp_path, open_source):
    frame = variants().iloc[[0, 0, 0]].assign(Hugo_Symbol="TP53", Variant_Classification="Missense_Mutation")
    source = open_source(write(frame, tmp_path / "t.maf"), format="maf", min_patients=2)
    with pytest.raises(DataError, match=r"no gene is hit in 2 patients \(most: 1\)"):
        source.read(source.list_samples())


def test_other_columns_and_other_classes(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("gene,effect,sample\nTP53,missense,A\nEGFR,silent,B\n")
    source = open_source(
        path,
        format="maf",
        gene_column="gene",
        class_column="effect",
        sample_column="sample",
        non_silent=["missense"],
    )
    features, values = assemble(source)
    assert (features, source.list_samples(), values.tolist()) == (["TP53"], ["A", "B"], [[1], [0]])


def test_the_sequenced_without_a_variant(tmp_path, open_source, assemble):
    frame = variants()
    source = open_source(write(frame, tmp_path / "t.maf"), format="maf", sequenced="lists/sequenced.txt")
    (tmp_path / "lists").mkdir()
    # The first stands in the MAF; the second is the patient of a sample in the MAF; the third has no variant.
    (tmp_path / "lists" / "sequenced.txt").write_text(
        f"{SAMPLES[3]}\n{SAMPLES[4][:12]}\n\n{SAMPLES[39]}\r\n{SAMPLES[39]}\n"
    )
    plain = open_source(tmp_path / "t.maf", format="maf").list_samples()
    assert source.list_samples() == [*plain, SAMPLES[39]]
    _, values = assemble(source)
    assert values[-1].sum() == 0
    assert not np.isnan(values).any()


def test_genes_that_the_assay_covers_are_features_hit_or_not(tmp_path, open_source, assemble):
    """Of new patients a model wants to know that nobody has a hit; a gene outside the list was not looked for."""
    frame = variants()
    write(frame, tmp_path / "t.maf")
    (tmp_path / "panel.txt").write_text("#panel of three\nTP53\nNOBODY\tchr1\r\n\nCIC\nTP53\n")
    source = open_source(tmp_path / "t.maf", format="maf", genes="panel.txt", min_patients=0)
    features, values = assemble(source)
    expected = reference(frame, source.list_samples())
    assert features == ["CIC", "NOBODY", "TP53"]
    np.testing.assert_array_equal(values[:, [0, 2]], expected[["CIC", "TP53"]])
    assert not values[:, 1].any() and not np.isnan(values).any()
    assert source.remarks["genes with a hit that `genes` does not list, left out"] == len(expected.columns) - 2
    assert source.companions == [tmp_path / "panel.txt"]
    hit = open_source(tmp_path / "t.maf", format="maf", genes="panel.txt")
    assert assemble(hit)[0] == ["CIC", "TP53"]


def test_genes_without_a_hit_have_to_be_listed(tmp_path, open_source):
    write(variants(), tmp_path / "t.maf")
    with pytest.raises(ValueError, match="list them in a file"):
        open_source(tmp_path / "t.maf", format="maf", min_patients=0)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    source = open_source(tmp_path / "t.maf", format="maf", genes="empty.txt", min_patients=0)
    with pytest.raises(DataError, match="lists no gene"):
        source.read(source.list_samples())


def test_a_patient_is_no_continuation_of_another(tmp_path, open_source):
    path = tmp_path / "t.maf"
    path.write_text("Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\nTP53\tSilent\tP10-01\n")
    (tmp_path / "s.txt").write_text("P1\nP10\nP100\n")
    assert open_source(path, format="maf", sequenced="s.txt").list_samples() == ["P10-01", "P1", "P100"]


HEAD = "Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\n"


@pytest.mark.parametrize(
    "comments",
    [
        "#sequenced_samples: A-01 B-01 C-01\n",
        "# sequenced_samples: A-01\tB-01\tC-01\n",
        "#version 2.4\n##Sequenced_Samples=A-01,B-01,C-01\n#by a portal\n",
        "#sequenced_samples A-01, B-01; C-01\r\n",
        "#sequenced_samples: A-01 B-01\n#sequenced_samples: B-01 C-01\n",
    ],
)
def test_the_sequenced_in_comments(tmp_path, open_source, assemble, comments):
    path = tmp_path / "t.maf"
    path.write_bytes((comments + HEAD + "TP53\tMissense_Mutation\tA-01\n").encode())
    source = open_source(path, format="maf")
    assert source.list_samples() == ["A-01", "B-01", "C-01"]
    assert list(source.remarks.values()) == [2]
    assert assemble(source)[1].tolist() == [[1], [0], [0]]


def test_other_comments_list_nobody(tmp_path, open_source):
    path = tmp_path / "t.maf"
    path.write_text(f"#not_sequenced_samples: B\n#sequenced by C\n{HEAD}TP53\tSilent\tA\n")
    assert open_source(path, format="maf").list_samples() == ["A"]


def test_a_case_list_of_a_portal(tmp_path, open_source):
    (tmp_path / "t.maf").write_text(f"{HEAD}TP53\tSilent\tTCGA-AA-0001-01A-11D\n")
    (tmp_path / "cases_sequenced.txt").write_text(
        "cancer_study_identifier: x\ncase_list_name: Sequenced\n"
        "case_list_ids: TCGA-AA-0001-01\tTCGA-AA-0002-01\tTCGA-AA-0003-01\n"
    )
    source = open_source(tmp_path / "t.maf", format="maf", sequenced="cases_sequenced.txt")
    assert source.list_samples() == ["TCGA-AA-0001-01A-11D", "TCGA-AA-0002-01", "TCGA-AA-0003-01"]


def test_the_listed_at_another_length_are_nobody_new(tmp_path, open_source):
    listed = "TCGA-AA-0001-01 TCGA-AA-0002 TCGA-AA-0003-01A-11D-1234-08 TCGA-AA-0004-01"
    rows = "".join(f"TP53\tNonsense_Mutation\tTCGA-AA-000{rest}\n" for rest in ("1-01A-11D", "2-01A", "3-01"))
    (tmp_path / "t.maf").write_text(f"#sequenced_samples: {listed}\n{HEAD}{rows}")
    samples = open_source(tmp_path / "t.maf", format="maf").list_samples()
    assert [sample[8:12] for sample in samples] == ["0001", "0002", "0003", "0004"]


def test_genes_left_out_dates_and_versions(tmp_path, open_source, assemble):
    rows = [
        *[("TP53", "A"), ("TTN", "A"), ("MUC16", "B"), ("1-Mar", "A"), ("1-Mar", "B")],
        *[("ENSG00000141510.14", "A"), ("ENSG00000141510.15", "B"), ("ENSG00000141510.15", "A")],
    ]
    text = "".join(f"{gene}\tMissense_Mutation\t{sample}\n" for gene, sample in rows)
    (tmp_path / "t.maf").write_text(HEAD + text)
    source = open_source(tmp_path / "t.maf", format="maf", leave_out_features=["TTN", "MUC*", "OR*"])
    features, values = assemble(source)
    assert features == ["ENSG00000141510", "TP53"]
    assert values.tolist() == [[1, 1], [1, 0]]
    told = "\n".join(source.remarks)
    for word in ("'TTN'", "'MUC*'", "no feature: 'OR*'", "'1-Mar'", "several Ensembl versions"):
        assert word in told, word
    with pytest.raises(DataError, match="no feature is left"):
        open_source(tmp_path / "t.maf", format="maf", leave_out_features=["*"]).read(["A"])


def test_a_missing_list_of_the_sequenced(tmp_path, open_source):
    (tmp_path / "sequenced.txt").write_text("A\n")
    source = open_source(write(variants(), tmp_path / "t.maf"), format="maf", sequenced="sequencd.txt")
    with pytest.raises(DataError, match=r"no such file(.|\n)*did you mean 'sequenced\.txt'"):
        source.list_samples()


def test_classes_that_do_not_occur(tmp_path, open_source):
    source = open_source(write(variants(), tmp_path / "t.maf"), format="maf", non_silent=["Misense_Mutation"])
    with pytest.raises(DataError, match=r"no variant(.|\n)*'Misense_Mutation': did you mean 'Missense_Mutation'"):
        source.read(source.list_samples())


CLASSES_IN_OTHER_WORDS = {
    "missense_variant": 1,
    "Missense": 1,
    "MISSENSE_MUTATION": 1,
    "nonsynonymous SNV": 1,
    "frameshift_variant": 1,
    "frame_shift_del": 1,
    "Frame-Shift-Del": 1,
    "Frameshift_INDEL": 1,
    "frameshift deletion": 1,
    "nonframeshift_insertion": 1,
    "inframe_deletion": 1,
    "stop_gained": 1,
    "stopgain": 1,
    "splice_donor_variant": 1,
    "DE_NOVO_START_OUT_FRAME": 1,
    "intron_variant&splice_acceptor_variant": 1,
    "missense_variant,splice_region_variant": 1,
    "exonic;splicing": 1,
    "synonymous_variant": 0,
    "synonymous SNV": 0,
    "splice_region_variant&intron_variant": 0,
    "3\u2019UTR": 0,
    "UTR3": 0,
    "FIVE_PRIME_FLANK": 0,
    "upstream;downstream": 0,
    "lincRNA": 0,
    "exonic": None,
    "COULD_NOT_DETERMINE": None,
    "Fusion": None,
    "frameshift_but_not_quite": None,
    "intron_variant&something_new": None,
    "": None,
}


@pytest.mark.parametrize(("word", "meant"), CLASSES_IN_OTHER_WORDS.items(), ids=str)
def test_classes_in_the_words_of_other_tools(tmp_path, open_source, assemble, word, meant):
    path = tmp_path / "t.maf"
    head = "Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\n"
    path.write_text(f"{head}TP53\tMissense_Mutation\tA\nTP53\t{word}\tB\nTP53\t{word}\tB\n")
    source = open_source(path, format="maf")
    _, values = assemble(source)
    assert values.tolist() == [[1], [meant or 0]]
    told = {f"variants not counted: class '{word}' is neither in non_silent nor in silent": 2}
    assert source.remarks == (told if meant is None else {})


def test_a_class_that_the_yaml_lists_is_no_surprise(tmp_path, open_source, assemble):
    path = tmp_path / "t.maf"
    head = "Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\n"
    path.write_text(f"{head}TP53\tFusion\tA\nTP53\tviii deletion\tB\nTP53\tMissense_Mutation\tC\n")
    source = open_source(path, format="maf", non_silent=["fusion"], silent=["vIII_deletion"])
    _, values = assemble(source)
    assert (values.tolist(), source.remarks) == ([[1], [0], [0]], {})


def test_of_thousands_of_classes_the_most_frequent_are_named(tmp_path, open_source, assemble):
    path = tmp_path / "t.maf"
    rows = [f"TP53\tp.A{n}T\tA" for n in range(50)] + ["TP53\tMissense_Mutation\tA", "?\tMissense_Mutation\tA"]
    path.write_text("Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\n" + "\n".join(rows) + "\n")
    source = open_source(path, format="maf")
    assert assemble(source)[0] == ["TP53"]
    assert source.remarks["variants not counted: 30 more classes in neither list"] == 30
    assert source.remarks["variants that count but lie in no gene, left out"] == 1
    assert len(source.remarks) == 22


def test_unknown_classes_alone_are_named_in_the_refusal(tmp_path, open_source):
    path = tmp_path / "t.maf"
    path.write_text("Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\nTP53\tzapped\tA\n")
    with pytest.raises(DataError, match=r"in neither list: 'zapped' \(1\)"):
        open_source(path, format="maf").read(["A"])


def test_a_column_that_does_not_exist(tmp_path, open_source):
    frame = variants().rename(columns={"Tumor_Sample_Barcode": "Tumor_Sample"})
    with pytest.raises(DataError, match=r"'Tumor_Sample_Barcode'(.|\n)*did you mean 'Tumor_Sample'"):
        open_source(write(frame, tmp_path / "t.maf"), format="maf").list_samples()


def test_a_row_without_a_sample(tmp_path, open_source):
    frame = variants()
    frame.loc[7, "Tumor_Sample_Barcode"] = ""
    with pytest.raises(DataError, match="row 8 has no 'Tumor_Sample_Barcode'"):
        open_source(write(frame, tmp_path / "t.maf"), format="maf").list_samples()


def test_truncated_ragged_and_empty(tmp_path, open_source):
    path = write(variants(3000), tmp_path / "t.maf.gz")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="truncated"):
        open_source(path, format="maf").list_samples()
    path = write(variants(20), tmp_path / "t.maf")
    path.write_text(path.read_text() + "TP53\t1\tSilent\n")
    with pytest.raises(DataError, match="has 3 cells, the header has 5"):
        open_source(path, format="maf").list_samples()
    write(variants().iloc[:0], path)
    with pytest.raises(DataError, match="holds no variant"):
        open_source(path, format="maf").list_samples()
    path.write_text("#comment\n")
    with pytest.raises(DataError, match="empty"):
        open_source(path, format="maf").list_samples()
