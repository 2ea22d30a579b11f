"""Copy number segments as means over chromosome arms or bins, against a slow reference."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.cohort.reading import tables
from foundation.cohort.reading.genome import ASSEMBLIES, CHROMOSOMES, chromosome
from foundation.cohort.sources import segments
from foundation.errors import DataError

COLUMNS = ["Sample", "Chromosome", "Start", "End", "Num_Probes", "Segment_Mean"]
ACROCENTRIC = {"13", "14", "15", "21", "22"}


def write(rows: list[tuple], path: Path) -> Path:
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, sep="\t", index=False)
    return path


def random_rows(genome: str, seed: int = 0, samples: int = 6) -> list[tuple]:
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(220):
        name = CHROMOSOMES[generator.integers(len(CHROMOSOMES))]
        start, end = sorted(generator.integers(1, ASSEMBLIES[genome][name].length, 2).tolist())
        written = generator.choice([name, f"chr{name}", name.replace("X", "23")])
        rows.append((f"S{generator.integers(samples)}", written, start, end, 9, round(generator.normal(), 3)))
    return rows


def intervals(genome: str, megabases: int | None) -> dict[str, tuple[str, int, int]]:
    """Feature to chromosome and half-open interval, counted from 0; written out slowly."""
    found = {}
    for name in [*map(str, range(1, 23)), "X"]:
        length, centromere = ASSEMBLIES[genome][name]
        if megabases is None:
            if name not in ACROCENTRIC:
                found[f"{name}p"] = (name, 0, centromere)
            found[f"{name}q"] = (name, centromere, length)
            continue
        start = 0
        while start < length:
            label = f"chr{name}:{start // 10**6}-{start // 10**6 + megabases}Mb"
            found[label] = (name, start, min(length, start + megabases * 10**6))
            start += megabases * 10**6
    return found


def slow_means(rows: list[tuple], samples: list[str], features: dict[str, tuple[str, int, int]]) -> np.ndarray:
    result = np.full((len(samples), len(features)), np.nan)
    for column, (name, low, high) in enumerate(features.values()):
        for row, sample in enumerate(samples):
            total = weight = 0.0
            for who, where, start, end, _, value in rows:
                if who != sample or where.removeprefix("chr").replace("23", "X") != name:
                    continue
                overlap = min(high, end) - max(low, start - 1)
                if overlap > 0:
                    total, weight = total + overlap * value, weight + overlap
            if weight:
                result[row, column] = total / weight
    return result


def test_features_left_out(tmp_path, open_source, assemble):
    path = write(random_rows("hg19"), tmp_path / "t.seg")
    whole, values = assemble(open_source(path, format="segments", genome="hg19"))
    source = open_source(path, format="segments", genome="hg19", leave_out_features=["X?", "1[0-9]q"])
    features, chosen = assemble(source)
    places = [
        place
        for place, name in enumerate(whole)
        if name[0] != "X" and not (name[0] == "1" and len(name) == 3 and name[2] == "q")
    ]
    assert features == [whole[place] for place in places]
    assert len(whole) - len(features) == 12
    np.testing.assert_array_equal(chosen, values[:, places])


@pytest.mark.parametrize("genome", ["hg19", "hg38"])
@pytest.mark.parametrize("small", [False, True])
def test_against_a_slow_reference(tmp_path, open_source, assemble, monkeypatch, genome, small):
    if small:
        monkeypatch.setattr(tables, "PIECE_BYTES", 900)
        monkeypatch.setattr(segments, "BLOCK_VALUES", 800)
    rows = random_rows(genome)
    source = open_source(
        write(rows, tmp_path / "t.seg"), format="segments", genome=genome, resolution="both", bin_megabases=25
    )
    samples = ["S3", "S0", "S5", "S1"]
    assert source.list_samples() == list(dict.fromkeys(row[0] for row in rows))
    features, values = assemble(source, samples)
    expected = {**intervals(genome, None), **intervals(genome, 25)}
    assert features == list(expected)
    np.testing.assert_allclose(values, slow_means(rows, samples, expected), rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 249_250_620), unique=True, max_size=6).map(sorted),
    values=st.lists(st.floats(-3, 3), min_size=7, max_size=7),
)
def test_the_arms_weigh_up_to_the_chromosome(tmp_path, open_source, assemble, cuts, values):
    length, centromere = ASSEMBLIES["hg19"]["1"]
    borders = [0, *cuts, length]
    rows = [
        ("S", "1", start + 1, end, 1, value)
        for start, end, value in zip(borders[:-1], borders[1:], values, strict=False)
    ]
    features, found = assemble(open_source(write(rows, tmp_path / "t.seg"), format="segments", genome="hg19"), ["S"])
    whole = sum((end - start + 1) * value for _, _, start, end, _, value in rows)
    arms = found[0, features.index("1p")] * centromere + found[0, features.index("1q")] * (length - centromere)
    assert arms == pytest.approx(whole, rel=1e-5, abs=100)
    assert np.isnan(np.delete(found[0], [0, 1])).all()


def test_a_base_more_or_less(tmp_path, open_source, assemble):
    end = ASSEMBLIES["hg19"]["X"].length
    rows = [
        ("S", "1", 1, 10, 1, 1.0),
        ("S", "1", 11, 12, 1, 4.0),
        ("S", "X", end, end, 1, 2.0),
        ("S", "2", 0, 1, 1, 3.0),
    ]
    features, values = assemble(open_source(write(rows, tmp_path / "t.seg"), format="segments", genome="hg19"))
    found = dict(zip(features, values[0], strict=True))
    assert found["1p"] == (10 * 1.0 + 2 * 4.0) / 12
    assert (found["Xq"], found["2p"]) == (2, 3)


def test_a_segment_over_the_centromere_is_in_both_arms(tmp_path, open_source, assemble):
    centromere = ASSEMBLIES["hg38"]["7"].centromere
    rows = [("S", "7", centromere, centromere + 1, 1, 0.5), ("S", "8", 1, ASSEMBLIES["hg38"]["8"].centromere, 1, 1)]
    features, values = assemble(open_source(write(rows, tmp_path / "t.seg"), format="segments", genome="hg38"))
    found = dict(zip(features, values[0], strict=True))
    assert (found["7p"], found["7q"], found["8p"]) == (0.5, 0.5, 1)
    assert np.isnan(found["8q"])


def test_which_features(tmp_path, open_source):
    path = write(random_rows("hg19"), tmp_path / "t.seg")
    arms = open_source(path, format="segments", genome="hg19").read(["S0"]).features
    assert len(arms) == 2 * 23 - 5
    assert arms[:2] == ["1p", "1q"]
    assert arms[-2:] == ["Xp", "Xq"]
    assert "13p" not in arms
    bins = open_source(path, format="segments", genome="hg19", resolution="bins").read(["S0"]).features
    assert bins[:2] == ["chr1:0-10Mb", "chr1:10-20Mb"]
    assert len(bins) == sum(-(-ASSEMBLIES["hg19"][name].length // 10**7) for name in CHROMOSOMES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *[("chr1", "1"), ("Chr22", "22"), ("23", "X"), ("chrX", "X"), (" x", "X"), ("24", ""), ("Y", ""), ("MT", "")],
        *[
            ("chrUn_KI270302v1", ""),
            ("GL000195.1", ""),
            ("chr1_random", ""),
            ("chrEBV", ""),
            ("hs37d5", ""),
            ("0", None),
            ("foo", None),
            ("1.0", "1"),
            ("chr01", "1"),
            ("23.0", "X"),
            ("1.5", None),
            ("100", None),
        ],
    ],
)
def test_names_of_chromosomes(name, meant):
    assert chromosome(name) == meant


def test_what_has_no_features_is_left_out(tmp_path, open_source, assemble):
    rows = [("S", "1", 1, 1000, 1, 0.5), ("S", "Y", 1, 10**9, 1, 9.0), ("T", "MT", 1, 16000, 1, 9.0)]
    source = open_source(write(rows, tmp_path / "t.seg"), format="segments", genome="hg19")
    features, values = assemble(source)
    assert source.list_samples() == ["S", "T"]
    assert values[0, features.index("1p")] == np.float32(0.5)
    assert np.isnan(values).sum() == values.size - 1


def test_a_missing_value_is_no_measurement(tmp_path, open_source, assemble):
    rows = [("S", "1", 1, 1000, 1, 0.5), ("S", "1", 1001, 9000, 1, "NA"), ("S", "2", 1, 5, 1, "")]
    features, values = assemble(open_source(write(rows, tmp_path / "t.seg"), format="segments", genome="hg19"))
    assert values[0, features.index("1p")] == np.float32(0.5)
    assert np.isnan(values[0, features.index("2p")])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("S", "25q", 1, 2, 1, 0.1), "row 2: there is no chromosome '25q'"),
        (("S", "1", "a", 2, 1, 0.1), "row 2, column 'Start': 'a' is not a finite number"),
        (("S", "1", 1, 2, 1, "inf"), "row 2, column 'Segment_Mean': 'inf'"),
        (("S", "1", 10, 2, 1, 0.1), "row 2: the segment 10 to 2 does not run"),
        (("S", "1", -4, 2, 1, 0.1), "row 2: the segment -4 to 2 does not run"),
        (("S", "1", "", 2, 1, 0.1), "row 2: the segment nan to 2 does not run"),
    ],
)
def test_bad_rows(tmp_path, open_source, assemble, row, message):
    path = write([("S", "1", 1, 1000, 1, 0.5), row], tmp_path / "t.seg")
    with pytest.raises(DataError) as caught:
        assemble(open_source(path, format="segments", genome="hg19"))
    assert message in str(caught.value)


def test_the_wrong_assembly_is_noticed(tmp_path, open_source, assemble):
    rows = [("S", "1", 1, ASSEMBLIES["hg19"]["1"].length, 1, 0.5)]
    path = write(rows, tmp_path / "t.seg")
    with pytest.raises(DataError, match=r"beyond its chromosome, chromosome 1 of 248956422 bases in hg38(.|\n)*genome"):
        assemble(open_source(path, format="segments", genome="hg38"))
    rounded_up = [("S", "1", 1, 249_300_000, 1, 0.5)]
    features, values = assemble(open_source(write(rounded_up, path), format="segments", genome="hg19"))
    assert values[0, features.index("1q")] == np.float32(0.5)
    assert np.isnan(values[0, features.index("2p")])


def test_columns(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("id,chrom,from,to,log2\nS,chr7,1,1000,0.25\n")
    names = {"sample_column": "id", "chromosome_column": "chrom", "start_column": "from", "end_column": "to"}
    source = open_source(path, format="segments", genome="hg38", value_column="log2", **names)
    features, values = assemble(source)
    assert values[0, features.index("7p")] == np.float32(0.25)
    with pytest.raises(DataError, match=r"no column 'lg2'(.|\n)*did you mean 'log2'"):
        assemble(open_source(path, format="segments", genome="hg38", value_column="lg2", **names))


def test_no_rows_and_no_sample(tmp_path, open_source):
    path = write([], tmp_path / "t.seg")
    with pytest.raises(DataError, match="holds no segment"):
        open_source(path, format="segments", genome="hg19").list_samples()
    write([("", "1", 1, 2, 1, 0.5)], path)
    with pytest.raises(DataError, match="row 1 has no sample"):
        open_source(path, format="segments", genome="hg19").list_samples()
